//! The layers on a GPU against the same layers on the CPU.

use super::common::{fill_parameters, tensor};
use super::gpu::{Gpu, gpu, work_on_gpu};
use gateloop_nn::gate_loop::TransitionMode;
use gateloop_nn::{
    AttentionConfig, Autocast, FeedForwardConfig, GateLoop, GateLoopConfig, LayerInput,
    NormPlacement, Residual, RmsNormKind, ScanOptions, Segments, SequenceLayer,
    SimpleGateLoopConfig, scan, scan_with,
};
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

fn distance(actual: &Tensor, expected: &Tensor) -> f64 {
    let real = |t: &Tensor| if t.is_complex() { t.view_as_real() } else { t.shallow_clone() };
    let actual = real(actual).to_device(Device::Cpu).to_kind(Kind::Double);
    let expected = real(expected).to_device(Device::Cpu).to_kind(Kind::Double);
    let size = expected.norm().double_value(&[]).max(1e-30);
    (actual - expected).norm().double_value(&[]) / size
}

/// Output and all gradients of a layer, on one device.
fn run<L: SequenceLayer>(
    vs: &VarStore,
    layer: &L,
    x: &Tensor,
    dy: &Tensor,
) -> Vec<(String, Tensor)> {
    let x = x.to_device(vs.device()).detach().set_requires_grad(true);
    let y = layer.forward(&x).unwrap();
    (&y * dy.to_device(vs.device())).sum(y.kind()).backward();
    let mut all = vec![("y".to_owned(), y.detach()), ("dx".to_owned(), x.grad())];
    let mut variables: Vec<_> = vs.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    all.extend(variables.into_iter().map(|(name, tensor)| {
        // The ablated transition has no gradient, which is the same as zero.
        let grad = tensor.grad();
        (name, if grad.defined() { grad } else { tensor.zeros_like() })
    }));
    all
}

fn compare<L: SequenceLayer>(
    gpu: &Gpu,
    dim: i64,
    what: &str,
    build: impl Fn(&VarStore) -> L,
    kind: Kind,
    allowed: f64,
) {
    tch::manual_seed(1);
    let mut here = VarStore::new(Device::Cpu);
    let on_cpu = build(&here);
    let mut there = VarStore::new(gpu.device);
    let on_gpu = build(&there);
    if kind == Kind::Double {
        here.double();
        there.double();
    }
    tch::no_grad(|| {
        let source = here.variables();
        for (name, mut tensor) in there.variables() {
            tensor.copy_(&source[&name]);
        }
    });
    for (batch, seqlen) in [(2, 37), (1, 1), (3, 500)] {
        let x = Tensor::randn([batch, seqlen, dim], (kind, Device::Cpu));
        let dy = Tensor::randn([batch, seqlen, dim], (kind, Device::Cpu));
        for vs in [&here, &there] {
            for (_, mut tensor) in vs.variables() {
                tensor.zero_grad();
            }
        }
        let expected = run(&here, &on_cpu, &x, &dy);
        let actual = work_on_gpu(|| run(&there, &on_gpu, &x, &dy));
        for ((name, actual), (_, expected)) in actual.iter().zip(&expected) {
            let found = distance(actual, expected);
            assert!(found < allowed, "{what} {batch}x{seqlen} {name}: {found:e}");
        }
        // With the state handed over, and token by token.
        let x = x.to_device(gpu.device);
        let by_steps = || {
            let whole = on_gpu.forward(&x).unwrap();
            let mut state = on_gpu.initial_state(batch);
            let cut = seqlen / 2;
            let mut parts = Vec::new();
            if cut > 0 {
                parts.push(on_gpu.prefill(&x.narrow(1, 0, cut), &mut state).unwrap());
            }
            for t in cut..seqlen {
                parts.push(on_gpu.step(&x.select(1, t), &mut state).unwrap().unsqueeze(1));
            }
            let found = distance(&Tensor::cat(&parts, 1), &whole);
            assert!(found < allowed, "{what} {batch}x{seqlen} by steps: {found:e}");
        };
        work_on_gpu(|| tch::no_grad(by_steps));
    }
}

#[test]
fn gate_loop_layers_equal_those_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for transition in [TransitionMode::Complex, TransitionMode::Real, TransitionMode::Identity] {
        for heads in [None, Some(4)] {
            let config = GateLoopConfig { heads, transition, ..GateLoopConfig::new(36) };
            let build = |vs: &VarStore| config.init(&vs.root()).unwrap();
            let what = format!("{transition:?} {heads:?}");
            compare(&gpu, 36, &what, build, Kind::Double, 1e-10);
            compare(&gpu, 36, &what, build, Kind::Float, 1e-3);
        }
    }
}

#[test]
fn normed_layers_equal_those_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let check = |config: &GateLoopConfig, kind: RmsNormKind| {
        let (dim, placement) = (config.dim, NormPlacement::Pre(kind));
        let build = |vs: &VarStore| {
            Residual::new(&vs.root(), dim, placement, |path| config.init(path)).unwrap()
        };
        compare(&gpu, dim, &format!("{config:?} {kind:?}"), build, Kind::Double, 1e-10);
    };
    // Of an odd width a pair of numbers does not always begin at an even place.
    for dim in [36, 35] {
        for kind in [RmsNormKind::Clamped, RmsNormKind::Epsilon] {
            check(&GateLoopConfig::new(dim), kind);
        }
        let base = || GateLoopConfig::new(dim);
        for config in [
            GateLoopConfig { sub_ln: true, ..base() },
            GateLoopConfig { direct_kv: true, ..base() },
            GateLoopConfig { swish_gating: false, transition_bias: false, ..base() },
            GateLoopConfig { dim_inner: Some(2 * dim), ..base() },
            GateLoopConfig { frac_gradient_state_transition: 1.0, ..base() },
        ] {
            check(&config, RmsNormKind::default());
        }
    }
}

#[test]
fn simple_layers_equal_those_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for reverse in [false, true] {
        for dim in [32, 33] {
            let config = SimpleGateLoopConfig { reverse, ..SimpleGateLoopConfig::new(dim) };
            let mut vs = VarStore::new(gpu.device);
            let layer = config.init(&vs.root()).unwrap();
            let mut here = VarStore::new(Device::Cpu);
            let twin = config.init(&here.root()).unwrap();
            vs.double();
            here.double();
            tch::no_grad(|| {
                let source = vs.variables();
                for (name, mut tensor) in here.variables() {
                    tensor.copy_(&source[&name]);
                }
            });
            let x = Tensor::randn([2, 300, dim], (Kind::Double, Device::Cpu));
            let dy = Tensor::randn([2, 300, dim], (Kind::Double, Device::Cpu));
            let actual = work_on_gpu(|| run(&vs, &layer, &x, &dy));
            let expected = run(&here, &twin, &x, &dy);
            for ((name, actual), (_, expected)) in actual.iter().zip(&expected) {
                let found = distance(actual, expected);
                assert!(found < 1e-10, "reverse {reverse} dim {dim} {name}: {found:e}");
            }
        }
    }
}

#[test]
fn the_scan_takes_views_segments_and_low_precision() {
    let Some(gpu) = gpu() else { return };
    let both = Tensor::rand([2, 400, 96], (Kind::Double, Device::Cpu));
    let h0 = Tensor::randn([2, 48], (Kind::Double, Device::Cpu));
    let starts: Vec<bool> = (0..800).map(|t| t % 97 == 5).collect();
    let options =
        ScanOptions { segment_starts: Some(starts), reverse: true, ..ScanOptions::default() };
    let on = |device: Device, kind: Kind| {
        let parts = both.to_device(device).to_kind(kind).chunk(2, -1);
        let state = if kind == Kind::Double { kind } else { Kind::Float };
        let h0 = h0.to_device(device).to_kind(state);
        scan_with(&parts[0], &parts[1], Some(&h0), &options).unwrap()
    };
    let expected = on(Device::Cpu, Kind::Double);
    for (kind, allowed) in
        [(Kind::Double, 1e-13), (Kind::Float, 1e-5), (Kind::BFloat16, 2e-2), (Kind::Half, 2e-3)]
    {
        let actual = work_on_gpu(|| on(gpu.device, kind));
        assert_eq!(actual.0.kind(), kind);
        assert!(distance(&actual.0, &expected.0) < allowed, "{kind:?}");
        assert!(distance(&actual.1, &expected.1) < allowed, "{kind:?}");
    }
}

#[test]
fn gradients_flow_under_autocast() {
    let Some(gpu) = gpu() else { return };
    let mut vs = VarStore::new(gpu.device);
    let layers = [
        GateLoopConfig::new(64).init(&(vs.root() / "max")).unwrap(),
        GateLoopConfig { heads: Some(4), ..GateLoopConfig::new(64) }
            .init(&(vs.root() / "heads"))
            .unwrap(),
    ];
    let x = Tensor::randn([4, 300, 64], (Kind::Float, gpu.device));
    let flow = |layer: &GateLoop| {
        let plain = layer.forward(&x).unwrap();
        let low = {
            let _autocast = Autocast::bf16();
            layer.forward(&x).unwrap()
        };
        assert_eq!(low.kind(), Kind::BFloat16);
        assert!(distance(&low, &plain) < 3e-2, "{:e}", distance(&low, &plain));
        low.to_kind(Kind::Float).square().mean(Kind::Float).backward();
    };
    for layer in &layers {
        work_on_gpu(|| flow(layer));
    }
    vs.variables().iter().for_each(|(name, tensor)| {
        let norm = tensor.grad().norm().double_value(&[]);
        assert!(norm.is_finite() && norm > 0.0, "{name}: {norm}");
    });
    vs.freeze();
}

/// Output and gradients of a layer with its shortcut and norm, by name: with autocast on a GPU, without on the CPU.
fn trained<L: SequenceLayer>(
    gpu: Option<&Gpu>,
    init: impl FnOnce(&Path<'_>) -> gateloop_nn::Result<L>,
) -> Vec<(String, Tensor)> {
    let mut vs = VarStore::new(Device::Cpu);
    let layer = Residual::new(&vs.root(), 64, NormPlacement::default(), init).unwrap();
    fill_parameters(&vs);
    if let Some(bias) = vs.variables().get_mut("fn.to_a.0.bias") {
        // Away from zero, where the angle of a complex gate turns with the last bit of a low precision.
        let _ = tch::no_grad(|| bias.fill_(2.0));
    }
    let device = gpu.map_or(Device::Cpu, |gpu| gpu.device);
    vs.set_device(device);
    let data = |seed: u64| tensor(&[2, 150, 64], Kind::Float, seed).to_device(device);
    let (x, dy) = (data(1).set_requires_grad(true), data(2));
    let y = {
        let _autocast = gpu.map(|_| Autocast::bf16());
        layer.forward(&x).unwrap()
    };
    assert_eq!(y.kind(), Kind::Float, "the shortcut is in f32");
    (&y * dy).sum(Kind::Float).backward();
    let mut variables: Vec<_> = vs.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    let grads = variables.into_iter().map(|(name, parameter)| (name, parameter.grad()));
    let grads = [("x".to_owned(), x.grad())].into_iter().chain(grads);
    [("y".to_owned(), y.detach())].into_iter().chain(grads).collect()
}

#[test]
fn gradients_under_autocast_are_near_those_in_full_precision() {
    fn check<L: SequenceLayer>(
        gpu: &Gpu,
        what: &str,
        init: impl Fn(&Path<'_>) -> gateloop_nn::Result<L>,
    ) {
        let expected = trained(None, &init);
        let actual = work_on_gpu(|| trained(Some(gpu), &init));
        for ((name, low), (_, expected)) in actual.iter().zip(&expected) {
            assert_eq!(low.kind(), Kind::Float, "{what}, {name}");
            let found = distance(low, expected);
            // Eight bits of a number, some of them lost in sums.
            assert!(found < 0.05, "{what}, {name}: {found:e}");
        }
    }
    let Some(gpu) = gpu() else { return };
    let base = || GateLoopConfig::new(64);
    for config in [
        base(),
        GateLoopConfig { swish_gating: false, ..base() },
        GateLoopConfig { sub_ln: true, ..base() },
        GateLoopConfig { heads: Some(4), ..base() },
    ] {
        check(&gpu, &format!("{config:?}"), |path| config.init(path));
    }
    check(&gpu, "feed-forward", |path| FeedForwardConfig::new(64).init(path));
}

#[test]
fn threads_may_share_a_stream() {
    let Some(gpu) = gpu() else { return };
    // Many launches from several threads share workspaces by stream, and nothing gets mixed up.
    let a = Tensor::rand([1, 20_000, 64], (Kind::Float, gpu.device));
    let b = Tensor::rand([1, 20_000, 64], (Kind::Float, gpu.device));
    let expected = work_on_gpu(|| scan(&a, &b, None)).unwrap().0;
    let gpu = &gpu;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (a, b, expected) = (a.shallow_clone(), b.shallow_clone(), expected.shallow_clone());
            scope.spawn(move || {
                for _ in 0..50_usize.div_ceil(gpu.slowness) {
                    assert!(work_on_gpu(|| scan(&a, &b, None)).unwrap().0.equal(&expected));
                }
            });
        }
    });
}

/// Output and gradient of x of a layer on packed sequences, on one device.
fn packed<L: SequenceLayer>(
    device: Device,
    build: impl Fn(&VarStore) -> L,
    x: &Tensor,
    starts: &[bool],
) -> [Tensor; 2] {
    let mut vs = VarStore::new(Device::Cpu);
    let layer = build(&vs);
    // The generator is one for all tests, which run side by side: a seed would not give the same twice.
    fill_parameters(&vs);
    vs.set_device(device);
    // Detached: on the CPU it is x itself, and what a GPU is given of an x with a gradient is no leaf.
    let x = x.to_device(device).detach().set_requires_grad(true);
    let segments = Segments::new(starts, [x.size()[0], x.size()[1]], device).unwrap();
    let y = layer.forward_of(LayerInput::from(&x).with_segments(Some(&segments))).unwrap();
    y.square().sum(y.kind()).backward();
    [y.detach(), x.grad()]
}

#[test]
fn packed_sequences_are_those_of_the_cpu() {
    fn check<L: SequenceLayer>(gpu: &Gpu, what: &str, build: impl Fn(&VarStore) -> L) {
        let x = tensor(&[2, 150, 64], Kind::Float, 1);
        let starts: Vec<bool> = (0..300).map(|n| n % 150 == 1 || n % 71 == 3).collect();
        let here = packed(Device::Cpu, &build, &x, &starts);
        let there = work_on_gpu(|| packed(gpu.device, &build, &x, &starts));
        for (name, (there, here)) in ["y", "dx"].into_iter().zip(there.iter().zip(&here)) {
            assert!(distance(there, here) < 1e-4, "{what}, {name}: {:e}", distance(there, here));
        }
    }
    let Some(gpu) = gpu() else { return };
    for heads in [None, Some(4)] {
        let config = GateLoopConfig { heads, ..GateLoopConfig::new(64) };
        check(&gpu, &format!("{config:?}"), |vs| config.init(&vs.root()).unwrap());
    }
    check(&gpu, "simple", |vs| SimpleGateLoopConfig::new(64).init(&vs.root()).unwrap());
    let attention = AttentionConfig { dim_head: 16, heads: 4, ..AttentionConfig::new(64) };
    for window in [None, Some(20)] {
        let config = AttentionConfig { window, ..attention.clone() };
        check(&gpu, &format!("{config:?}"), |vs| config.init(&vs.root()).unwrap());
    }
}
