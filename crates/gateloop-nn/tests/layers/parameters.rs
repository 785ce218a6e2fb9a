//! Names and shapes of the parameters are those of the PyTorch reference, so that weights can be
//! exchanged.

use crate::variants::DIM;
use gateloop_nn::gate_loop::TransitionMode;
use gateloop_nn::{
    FeedForwardConfig, GateLoopConfig, NormPlacement, Residual, Result, SimpleGateLoopConfig,
};
use tch::Device;
use tch::nn::{Path, VarStore};

/// A name and a shape.
type Parameter = (&'static str, &'static [i64]);

fn assert_parameters<L>(init: impl FnOnce(&Path<'_>) -> Result<L>, expected: &[Parameter]) {
    let vs = VarStore::new(Device::Cpu);
    init(&vs.root()).expect("the configuration is right");
    let mut found: Vec<_> = vs.variables().into_iter().map(|(n, t)| (n, t.size())).collect();
    found.sort();
    let mut expected: Vec<_> =
        expected.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec())).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn gate_loop() {
    let plain = GateLoopConfig::new(DIM);
    for transition in [TransitionMode::Complex, TransitionMode::Real, TransitionMode::Identity] {
        assert_parameters(
            |path| GateLoopConfig { transition, ..plain.clone() }.init(path),
            &[
                ("to_qkv.weight", &[18, 6]),
                ("to_a.0.weight", &[12, 6]),
                ("to_a.0.bias", &[12]),
                ("to_gates.0.weight", &[6, 6]),
                ("to_out.weight", &[6, 6]),
            ],
        );
    }
    let (dim_inner, heads) = (Some(8), Some(2));
    assert_parameters(
        |path| GateLoopConfig { dim_inner, heads, sub_ln: true, ..plain.clone() }.init(path),
        &[
            ("to_qkv.weight", &[24, 6]),
            ("to_a.0.weight", &[4, 6]),
            ("to_a.0.bias", &[4]),
            ("to_gates.0.weight", &[8, 6]),
            ("maybe_sub_ln.weight", &[8]),
            ("maybe_sub_ln.bias", &[8]),
            ("to_out.weight", &[6, 8]),
        ],
    );
}

#[test]
fn an_ungated_gate_loop_projects_only_if_it_must() {
    let ungated = GateLoopConfig { swish_gating: false, ..GateLoopConfig::new(DIM) };
    assert_parameters(
        |path| ungated.init(path),
        &[("to_qkv.weight", &[18, 6]), ("to_a.0.weight", &[12, 6]), ("to_a.0.bias", &[12])],
    );
    assert_parameters(
        |path| GateLoopConfig { dim_inner: Some(4), ..ungated.clone() }.init(path),
        &[
            ("to_qkv.weight", &[12, 6]),
            ("to_a.0.weight", &[8, 6]),
            ("to_a.0.bias", &[8]),
            ("to_out.weight", &[6, 4]),
        ],
    );
}

#[test]
fn simple_gate_loop() {
    let plain = SimpleGateLoopConfig::new(DIM);
    let projection: Parameter = ("to_qkva.0.weight", &[18, 6]);
    assert_parameters(|path| plain.init(path), &[("norm.gamma", &[6]), projection]);
    let bare = SimpleGateLoopConfig { prenorm: false, ..plain.clone() };
    assert_parameters(|path| bare.init(path), &[projection]);
    let normed = SimpleGateLoopConfig { post_ln: true, ..plain };
    let post: [Parameter; 2] = [("maybe_post_ln.weight", &[6]), ("maybe_post_ln.bias", &[6])];
    assert_parameters(
        |path| normed.init(path),
        &[("norm.gamma", &[6]), projection, post[0], post[1]],
    );
}

#[test]
fn feed_forward_and_residual() {
    let feed_forward = FeedForwardConfig { mult: 4, ..FeedForwardConfig::new(DIM) };
    assert_parameters(
        |path| feed_forward.init(path),
        &[("0.weight", &[24, 6]), ("0.bias", &[24]), ("2.weight", &[6, 24]), ("2.bias", &[6])],
    );
    let inside: [Parameter; 4] = [
        ("fn.0.weight", &[24, 6]),
        ("fn.0.bias", &[24]),
        ("fn.2.weight", &[6, 24]),
        ("fn.2.bias", &[6]),
    ];
    let norms: [(NormPlacement, &[Parameter]); 2] = [
        (NormPlacement::default(), &[("norm.gamma", &[6])]),
        (NormPlacement::Post, &[("norm.weight", &[6]), ("norm.bias", &[6])]),
    ];
    for (placement, norm) in norms {
        assert_parameters(
            |path| Residual::new(path, DIM, placement, |path| feed_forward.init(path)),
            &[&inside, norm].concat(),
        );
    }
}

#[test]
fn norms_start_neutral_and_maps_within_their_bound() {
    let vs = VarStore::new(Device::Cpu);
    let config = GateLoopConfig { sub_ln: true, ..GateLoopConfig::new(64) };
    Residual::new(&vs.root(), 64, NormPlacement::default(), |path| config.init(path))
        .expect("the configuration is right");
    for (name, parameter) in vs.variables() {
        let values = crate::common::values(&parameter);
        match name.as_str() {
            "norm.gamma" | "fn.maybe_sub_ln.weight" => assert!(values.iter().all(|&x| x == 1.0)),
            "fn.maybe_sub_ln.bias" => assert!(values.iter().all(|&x| x == 0.0)),
            _ => {
                let bound = 1.0 / 8.0; // 1 / sqrt(64)
                assert!(values.iter().all(|x| x.abs() <= bound), "{name}");
                assert!(values.iter().any(|x| x.abs() > bound / 2.0), "{name} is too small");
            }
        }
    }
}
