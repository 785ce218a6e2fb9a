//! What cannot be split, and ranks that fail, are errors that say so.

use crate::common::{assert_operand, tensor};
use crate::layers::build;
use crate::ranks::on_ranks;
use gateloop_nn::gate_loop::Form;
use gateloop_nn::{
    AttentionConfig, Engine, FeedForwardConfig, GateLoopConfig, LayerInput, NnError, RelPos,
    Result, ScanOptions, SequenceLayer, SequenceRanks, SimpleGateLoopConfig, scan_over_ranks,
};
use std::sync::Arc;
use tch::{Kind, Tensor};

const DIM: i64 = 8;

/// One of three ranks; the line is dead, or another model answers.
#[derive(Debug)]
struct Broken {
    rank: usize,
    answer: Option<Vec<i64>>,
}

impl SequenceRanks for Broken {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        3
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor> {
        match &self.answer {
            Some(dims) => Ok(Tensor::zeros(dims.as_slice(), (tensor.kind(), tensor.device()))),
            None => Err(NnError::Gather {
                what: "tensors",
                rank: self.rank,
                source: "the line is dead".into(),
            }),
        }
    }
}

fn broken(rank: usize, answer: Option<Vec<i64>>) -> Arc<dyn SequenceRanks> {
    Arc::new(Broken { rank, answer })
}

fn x() -> Tensor {
    tensor(&[2, 5, DIM], Kind::Double, 1)
}

#[track_caller]
fn refused<L: SequenceLayer>(layer: &L, key: &str) {
    let (x, ranks) = (x(), broken(1, None));
    let input = LayerInput::from(&x).with_ranks(Some(&ranks));
    let error = layer.forward_of(input).expect_err("it cannot be split");
    assert!(matches!(&error, NnError::Config { key: named, .. } if *named == key), "{error}");
}

#[test]
fn attention_is_refused() {
    let plain = AttentionConfig { dim_head: 4, heads: 2, ..AttentionConfig::new(DIM) };
    for config in [
        plain.clone(),
        AttentionConfig { window: Some(2), ..plain.clone() },
        AttentionConfig { rel_pos: Some(RelPos::Corrected), ..plain.clone() },
        AttentionConfig { rotary_emb: true, ..plain.clone() },
    ] {
        refused(&build(Kind::Double, |path| config.init(path)).1, "ranks");
    }
}

#[test]
fn the_references_log_space_scan_is_refused() {
    let config = SimpleGateLoopConfig {
        engine: Engine::HeinsenAsReference,
        ..SimpleGateLoopConfig::new(DIM)
    };
    refused(&build(Kind::Double, |path| config.init(path)).1, "use_heinsen");
}

fn refuses_states<L: SequenceLayer>(layer: &L) {
    let (x, ranks) = (x(), broken(1, None));
    let mut state = layer.initial_state(2);
    let input = LayerInput::from(&x).with_ranks(Some(&ranks));
    let error = layer.prefill_of(input, &mut state).expect_err("states are of whole sequences");
    assert!(matches!(error, NnError::Config { key: "ranks", .. }), "{error}");
}

#[test]
fn a_state_is_refused() {
    refuses_states(&build(Kind::Double, |path| GateLoopConfig::new(DIM).init(path)).1);
    refuses_states(&build(Kind::Double, |path| SimpleGateLoopConfig::new(DIM).init(path)).1);
    refuses_states(&build(Kind::Double, |path| AttentionConfig::new(DIM).init(path)).1);
    refuses_states(&build(Kind::Double, |path| FeedForwardConfig::new(DIM).init(path)).1);
}

#[test]
fn forms_without_a_scan_are_refused() {
    for form in [Form::Recurrent, Form::Quadratic] {
        for heads in [None, Some(2)] {
            let config = GateLoopConfig { form, heads, ..GateLoopConfig::new(DIM) };
            let (_vs, layer) = build(Kind::Double, |path| config.init(path));
            let (x, ranks) = (x(), broken(1, None));
            let error = layer.forward_of(LayerInput::from(&x).with_ranks(Some(&ranks)));
            let error = error.unwrap_err();
            assert!(matches!(error, NnError::Form { .. }), "{error}");
            assert!(error.to_string().contains(form.name()), "{error}");
        }
    }
}

#[test]
fn what_mixes_nothing_needs_no_ranks() -> Result<()> {
    let (_vs, layer) = build(Kind::Double, |path| FeedForwardConfig::new(DIM).init(path));
    let (x, ranks) = (x(), broken(1, None));
    let y = layer.forward_of(LayerInput::from(&x).with_ranks(Some(&ranks)))?;
    assert!(y.equal(&layer.forward(&x)?));
    Ok(())
}

#[test]
fn a_gather_that_fails_is_named() {
    let x = x();
    for rank in 0..3 {
        let ranks = broken(rank, None);
        let options = ScanOptions::default();
        let error = scan_over_ranks(&x, &x, None, &options, &ranks).unwrap_err();
        assert!(error.to_string().contains("the line is dead"), "{error}");
        let error = tch::no_grad(|| scan_over_ranks(&x, &x, None, &options, &ranks)).unwrap_err();
        assert!(matches!(&error, NnError::Gather { rank: named, .. } if *named == rank), "{error}");
        let said = error.to_string();
        assert!(said.contains("last states") && said.contains("the line is dead"), "{said}");
        for heads in [None, Some(2)] {
            let config = GateLoopConfig { heads, recompute: true, ..GateLoopConfig::new(DIM) };
            let (_vs, layer) = build(Kind::Double, |path| config.init(path));
            let error = layer.forward_of(LayerInput::from(&x).with_ranks(Some(&ranks)));
            let said = error.unwrap_err().to_string();
            assert!(said.contains("gather") && said.contains("the line is dead"), "{said}");
        }
    }
}

/// Gathers forward and not backward.
#[derive(Debug)]
struct BrokenLater(Arc<dyn SequenceRanks>, std::sync::atomic::AtomicBool);

impl SequenceRanks for BrokenLater {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor> {
        if self.1.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Err(NnError::Function { message: "a cable was cut".into() });
        }
        self.0.all_gather(tensor)
    }
}

#[test]
fn a_gather_that_fails_in_the_backward_pass_is_its_error() {
    let (said, _) = on_ranks(vec![x(), x()], |x, ranks| {
        let later = BrokenLater(Arc::clone(ranks), std::sync::atomic::AtomicBool::new(false));
        let ranks: Arc<dyn SequenceRanks> = Arc::new(later);
        let (_vs, layer) = build(Kind::Double, |path| GateLoopConfig::new(DIM).init(path));
        let y = layer.forward_of(LayerInput::from(&x).with_ranks(Some(&ranks)));
        let y = y.expect("the forward gather works");
        y.sum(Kind::Double).f_backward().unwrap_err().to_string()
    });
    for said in said {
        assert!(said.contains("gradients of states") && said.contains("a cable was cut"), "{said}");
    }
}

#[test]
fn ranks_that_bring_something_else_are_found_out() {
    let x = x();
    for answer in [vec![3, 7], vec![2, 160], vec![160], vec![3, 161]] {
        let ranks = broken(1, Some(answer));
        let options = ScanOptions::default();
        let error = tch::no_grad(|| scan_over_ranks(&x, &x, None, &options, &ranks)).unwrap_err();
        assert!(matches!(error, NnError::Gathered { .. }), "{error}");
    }
    let nowhere = broken(3, None);
    let error = scan_over_ranks(&x, &x, None, &ScanOptions::default(), &nowhere).unwrap_err();
    assert!(matches!(error, NnError::Config { key: "ranks", .. }), "{error}");
}

#[test]
fn only_the_first_rank_has_a_state_before_the_sequence() {
    let (x, h0) = (x(), tensor(&[2, DIM], Kind::Double, 2));
    for (reverse, first) in [(false, 0), (true, 2)] {
        let options = ScanOptions { reverse, ..ScanOptions::default() };
        for rank in (0..3).filter(|&rank| rank != first) {
            let ranks = broken(rank, None);
            let error = scan_over_ranks(&x, &x, Some(&h0), &options, &ranks).unwrap_err();
            assert!(matches!(error, NnError::Config { key: "h0", .. }), "{error}");
        }
        let ranks = broken(first, None);
        assert_operand(scan_over_ranks(&x, &x, Some(&x), &options, &ranks), "h0");
    }
}
