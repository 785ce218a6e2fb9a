//! Operations on lists of tensors against plain Rust.

mod common;

use common::{TestResult, assert_bits, assert_close, assert_operand, tensor, tolerance, values};
use gateloop_nn::foreach::{
    AdamW, AdamWGuard, AdamWState, adamw_, adamw_guarded_, clear_grads, lerp_, mul_, set_grads,
    total_norm, total_norm_tensor,
};
use tch::{Device, Kind, Tensor};

const OPTIONS: AdamW = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 };

/// The shapes of the parameters: a matrix, a vector, a scalar.
const SHAPES: [&[i64]; 3] = [&[4, 5], &[7], &[]];

fn tensors(seed: u64, kind: Kind) -> Vec<Tensor> {
    SHAPES.iter().zip(seed..).map(|(shape, seed)| tensor(shape, kind, seed)).collect()
}

/// The lists of an update that has not begun.
struct Lists {
    params: Vec<Tensor>,
    grads: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
}

/// Picks one of the lists.
type ListOf = fn(&mut Lists) -> &mut Vec<Tensor>;

impl Lists {
    fn new(kind: Kind) -> Self {
        let zeros = || SHAPES.iter().map(|shape| Tensor::zeros(*shape, (kind, Device::Cpu)));
        Self {
            params: tensors(10, kind),
            grads: tensors(20, kind),
            exp_avgs: zeros().collect(),
            exp_avg_sqs: zeros().collect(),
            steps: SHAPES.iter().map(|_| Tensor::zeros([], (Kind::Float, Device::Cpu))).collect(),
        }
    }

    fn step(&self) -> gateloop_nn::Result<()> {
        let Self { params, grads, exp_avgs, exp_avg_sqs, steps } = self;
        adamw_(&AdamWState { params, grads, exp_avgs, exp_avg_sqs, steps }, &OPTIONS)
    }

    fn guarded_step(&self, grad_scale: Option<f32>, found_inf: f32) -> gateloop_nn::Result<()> {
        let (grad_scale, found_inf) = (grad_scale.map(Tensor::from), Tensor::from(found_inf));
        self.step_under(&AdamWGuard { grad_scale: grad_scale.as_ref(), found_inf: &found_inf })
    }

    fn step_under(&self, guard: &AdamWGuard<'_>) -> gateloop_nn::Result<()> {
        let Self { params, grads, exp_avgs, exp_avg_sqs, steps } = self;
        let state = AdamWState { params, grads, exp_avgs, exp_avg_sqs, steps };
        adamw_guarded_(&state, &OPTIONS, guard)
    }

    /// What an update changes.
    fn updated(&self) -> Vec<Tensor> {
        let Self { params, exp_avgs, exp_avg_sqs, steps, .. } = self;
        let lists = [params, exp_avgs, exp_avg_sqs, steps];
        lists.into_iter().flatten().map(Tensor::copy).collect()
    }
}

/// One number's AdamW, as in algorithm 2 of arXiv 1711.05101.
struct Scalar {
    x: f64,
    m: f64,
    v: f64,
}

impl Scalar {
    fn step(&mut self, g: f64, t: i32) {
        let AdamW { lr, beta1, beta2, eps, weight_decay } = OPTIONS;
        self.x -= lr * weight_decay * self.x;
        self.m = beta1 * self.m + (1.0 - beta1) * g;
        self.v = beta2 * self.v + (1.0 - beta2) * g * g;
        let m = self.m / (1.0 - beta1.powi(t));
        let v = self.v / (1.0 - beta2.powi(t));
        self.x -= lr * m / (v.sqrt() + eps);
    }
}

#[test]
fn adamw_equals_plain_rust() -> TestResult {
    let mut lists = Lists::new(Kind::Double);
    let mut scalars: Vec<Vec<Scalar>> = lists
        .params
        .iter()
        .map(|p| values(p).into_iter().map(|x| Scalar { x, m: 0.0, v: 0.0 }).collect())
        .collect();
    for t in 1..=5 {
        lists.grads = tensors(100 * t as u64, Kind::Double);
        lists.step()?;
        for (scalars, grads) in scalars.iter_mut().zip(&lists.grads) {
            for (scalar, g) in scalars.iter_mut().zip(values(grads)) {
                scalar.step(g, t);
            }
        }
    }
    // Five updates, each with about ten roundings on the way to a parameter.
    let tolerance = tolerance(Kind::Double, 50);
    for (i, scalars) in scalars.iter().enumerate() {
        let of = |part: fn(&Scalar) -> f64| {
            Tensor::from_slice(&scalars.iter().map(part).collect::<Vec<_>>()).view(SHAPES[i])
        };
        assert_close("parameter", &lists.params[i], &of(|s| s.x), tolerance);
        assert_close("first moment", &lists.exp_avgs[i], &of(|s| s.m), tolerance);
        assert_close("second moment", &lists.exp_avg_sqs[i], &of(|s| s.v), tolerance);
        assert_eq!(lists.steps[i].double_value(&[]), 5.0);
    }
    Ok(())
}

#[test]
fn adamw_updates_parameters_that_record_gradients() -> TestResult {
    let mut lists = Lists::new(Kind::Float);
    lists.params = lists.params.iter().map(common::leaf).collect();
    let before = values(&lists.params[0]);
    lists.step()?;
    assert!(lists.params[0].requires_grad());
    assert_ne!(values(&lists.params[0]), before);
    Ok(())
}

#[test]
fn adamw_takes_a_gradient_in_any_layout() -> TestResult {
    let (plain, mut strided) = (Lists::new(Kind::Double), Lists::new(Kind::Double));
    strided.grads[0] = plain.grads[0].transpose(0, 1).contiguous().transpose(0, 1);
    plain.step()?;
    strided.step()?;
    assert_eq!(values(&strided.params[0]), values(&plain.params[0]));
    Ok(())
}

#[test]
fn adamw_refuses_lists_of_other_lengths() {
    let shorten: [(&str, ListOf); 4] = [
        ("grads", |lists| &mut lists.grads),
        ("exp_avgs", |lists| &mut lists.exp_avgs),
        ("exp_avg_sqs", |lists| &mut lists.exp_avg_sqs),
        ("steps", |lists| &mut lists.steps),
    ];
    for (operand, list) in shorten {
        let mut lists = Lists::new(Kind::Float);
        list(&mut lists).pop();
        assert_operand(lists.step(), operand);
    }
}

#[test]
fn adamw_refuses_tensors_that_do_not_match_their_parameter() {
    let replace: [(&str, ListOf); 3] = [
        ("grads", |lists| &mut lists.grads),
        ("exp_avgs", |lists| &mut lists.exp_avgs),
        ("exp_avg_sqs", |lists| &mut lists.exp_avg_sqs),
    ];
    for (operand, list) in replace {
        for wrong in
            [tensor(&[3], Kind::Float, 1), tensor(SHAPES[1], Kind::Double, 1), Tensor::new()]
        {
            let mut lists = Lists::new(Kind::Float);
            list(&mut lists)[1] = wrong;
            let before: Vec<_> = lists.params.iter().map(values).collect();
            assert_operand(lists.step(), operand);
            assert_eq!(lists.params.iter().map(values).collect::<Vec<_>>(), before);
        }
    }
    let mut lists = Lists::new(Kind::Float);
    lists.steps[0] = tensor(&[2], Kind::Float, 1);
    assert_operand(lists.step(), "steps");
}

#[test]
fn adamw_refuses_what_it_could_not_update_in_place() {
    let replace: [(&str, ListOf); 3] = [
        ("params", |lists| &mut lists.params),
        ("exp_avgs", |lists| &mut lists.exp_avgs),
        ("exp_avg_sqs", |lists| &mut lists.exp_avg_sqs),
    ];
    for (operand, list) in replace {
        let mut lists = Lists::new(Kind::Float);
        list(&mut lists)[0] = tensor(&[5, 4], Kind::Float, 1).transpose(0, 1);
        assert_operand(lists.step(), operand);
    }
}

#[test]
fn guarded_adamw_divides_gradients_first() -> TestResult {
    let (mut plain, mut guarded) = (Lists::new(Kind::Float), Lists::new(Kind::Float));
    let scales = [3.0, 1.0, 0.7];
    for (seed, scale) in (100..).step_by(10).zip(scales) {
        plain.grads = tensors(seed, Kind::Float);
        guarded.grads = tensors(seed, Kind::Float);
        mul_(&plain.grads, 1.0 / f64::from(scale))?;
        plain.step()?;
        guarded.guarded_step(Some(scale), 0.0)?;
    }
    for (guarded, plain) in guarded.updated().iter().zip(&plain.updated()) {
        // Numbers of size 1, each rounded once more in each of three updates: half of that is 2e-7.
        let off = (guarded - plain).abs().max().double_value(&[]);
        assert!(off < 1e-6, "{off:e}");
    }
    Ok(())
}

#[test]
fn guarded_adamw_without_a_scale_is_adamw() -> TestResult {
    let (plain, guarded) = (Lists::new(Kind::Float), Lists::new(Kind::Float));
    for _ in 0..3 {
        plain.step()?;
        guarded.guarded_step(None, 0.0)?;
    }
    for (guarded, plain) in guarded.updated().iter().zip(&plain.updated()) {
        assert_bits("updated", guarded, plain);
    }
    Ok(())
}

#[test]
fn guarded_adamw_changes_and_counts_nothing_that_is_refused() -> TestResult {
    let mut lists = Lists::new(Kind::Float);
    lists.step()?;
    lists.step()?;
    let before = lists.updated();
    lists.grads[1] = tensor(SHAPES[1], Kind::Float, 1) / 0.0;
    for grad_scale in [None, Some(f32::INFINITY), Some(f32::NAN), Some(2.0)] {
        lists.guarded_step(grad_scale, 1.0)?;
        for (after, before) in lists.updated().iter().zip(&before) {
            assert_bits("refused", after, before);
        }
    }
    lists.grads = tensors(20, Kind::Float);
    lists.guarded_step(None, 0.0)?;
    assert!(lists.steps.iter().all(|steps| steps.double_value(&[]) == 3.0));
    assert_ne!(values(&lists.params[0]), values(&before[0]));
    Ok(())
}

#[test]
fn guarded_adamw_refuses_what_is_not_a_float_scalar() {
    let (lists, zero) = (Lists::new(Kind::Float), Tensor::from(0f32));
    for wrong in [Tensor::from(0f64), Tensor::from_slice(&[0f32]), Tensor::new()] {
        let before = lists.updated();
        let guard = AdamWGuard { grad_scale: Some(&wrong), found_inf: &zero };
        assert_operand(lists.step_under(&guard), "grad_scale");
        assert_operand(
            lists.step_under(&AdamWGuard { grad_scale: None, found_inf: &wrong }),
            "found_inf",
        );
        assert_eq!(lists.updated(), before);
    }
}

#[test]
fn total_norm_is_that_of_all_elements() -> TestResult {
    let tensors = tensors(30, Kind::Double);
    let squares: f64 = tensors.iter().flat_map(values).map(|x| x * x).sum();
    let norm = Tensor::from(total_norm(&tensors)?);
    let elements: usize = tensors.iter().map(Tensor::numel).sum();
    let tolerance = tolerance(Kind::Double, elements as i64);
    assert_close("norm", &norm, &Tensor::from(squares.sqrt()), tolerance);
    assert_eq!(total_norm_tensor(&tensors)?, Some(norm));
    Ok(())
}

#[test]
fn mul_scales_in_place() -> TestResult {
    let tensors = tensors(40, Kind::Double);
    let expected: Vec<f64> = tensors.iter().flat_map(values).map(|x| x * 0.25).collect();
    mul_(&tensors, 0.25)?;
    assert_eq!(tensors.iter().flat_map(values).collect::<Vec<_>>(), expected);
    Ok(())
}

#[test]
fn empty_lists_are_fine() -> TestResult {
    assert_eq!(total_norm(&[])?, 0.0);
    assert!(total_norm_tensor(&[])?.is_none());
    mul_(&[], 2.0)?;
    let none = AdamWState { params: &[], grads: &[], exp_avgs: &[], exp_avg_sqs: &[], steps: &[] };
    adamw_(&none, &OPTIONS)?;
    let found_inf = Tensor::from(0f32);
    adamw_guarded_(&none, &OPTIONS, &AdamWGuard { grad_scale: None, found_inf: &found_inf })?;
    Ok(())
}

#[test]
fn an_undefined_tensor_is_an_error() {
    let list = [tensor(&[3], Kind::Float, 1), Tensor::new()];
    assert!(total_norm(&list).is_err());
    assert!(mul_(&list, 2.0).is_err());
}

#[test]
fn cleared_gradients_are_none_and_come_back() -> TestResult {
    let leaves: Vec<Tensor> =
        tensors(1, Kind::Float).into_iter().map(|x| x.set_requires_grad(true)).collect();
    for round in 0..2 {
        for leaf in &leaves {
            leaf.square().sum(Kind::Float).backward();
        }
        for leaf in &leaves {
            // Not added to those of the round before.
            assert_close("grad", &leaf.grad(), &(leaf.detach() * 2.0), tolerance(Kind::Float, 1));
        }
        clear_grads(&leaves)?;
        assert!(leaves.iter().all(|leaf| !leaf.grad().defined()), "round {round}");
    }
    clear_grads(&[])?;
    Ok(())
}

#[test]
fn lerp_goes_a_share_of_the_way_and_refuses_what_does_not_match() -> TestResult {
    let (moved, targets) = (tensors(70, Kind::Double), tensors(80, Kind::Double));
    let way = |(x, to): (&Tensor, &Tensor)| x + (to - x) * 0.3;
    let expected: Vec<Tensor> = moved.iter().zip(&targets).map(way).collect();
    lerp_(&moved, &targets, 0.3)?;
    for (moved, expected) in moved.iter().zip(&expected) {
        assert_close("moved", moved, expected, tolerance(Kind::Double, 3));
    }
    lerp_(&[], &[], 0.3)?;
    assert_operand(lerp_(&moved, &targets[..2], 0.3), "targets");
    let others = tensors(80, Kind::Float);
    assert_operand(lerp_(&moved, &others, 0.3), "targets");
    let mut turned = tensors(80, Kind::Double);
    turned.swap(0, 1);
    assert_operand(lerp_(&moved, &turned, 0.3), "targets");
    Ok(())
}

#[test]
fn gradients_are_replaced_without_a_copy() -> gateloop_nn::Result<()> {
    let options = (Kind::Float, Device::Cpu);
    let leaves = [Tensor::ones([2, 3], options), Tensor::ones([4], options)];
    let leaves = leaves.map(|leaf| leaf.set_requires_grad(true));
    (leaves[0].sum(Kind::Float) * 2.0).backward();
    let flat = Tensor::arange(10, options);
    let grads = [flat.narrow(0, 0, 6).view([2, 3]), flat.narrow(0, 6, 4)];
    set_grads(&leaves, &grads)?;
    for (leaf, grad) in leaves.iter().zip(&grads) {
        assert_eq!((leaf.grad(), leaf.grad().data_ptr()), (grad.shallow_clone(), grad.data_ptr()));
    }
    let _ = flat.shallow_clone().zero_();
    assert_eq!(total_norm(&[leaves[0].grad(), leaves[1].grad()])?, 0.0);
    // Given back, they are the list's again: the next backward pass does not add to them.
    clear_grads(&leaves)?;
    leaves[1].sum(Kind::Float).backward();
    assert_eq!(
        (leaves[1].grad(), flat.abs().max()),
        (Tensor::ones([4], options), Tensor::from(0f32))
    );

    let other = [Tensor::zeros([3, 2], options), Tensor::zeros([4], options)];
    assert!(set_grads(&leaves, &other).unwrap_err().to_string().contains("`grads`"));
    assert!(set_grads(&leaves, &grads[..1]).unwrap_err().to_string().contains("`grads`"));
    set_grads(&[], &[])
}
