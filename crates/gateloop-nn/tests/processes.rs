//! Layers whose sequence lies on several processes, beside the same layers with all of it.

// A test ends by panicking.
#![allow(clippy::unwrap_used)]

use gateloop_dist::testing::across;
use gateloop_dist::{Dist, Group};
use gateloop_nn::{GateLoopConfig, LayerInput, SequenceLayer, SequenceRanks, SimpleGateLoopConfig};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

const BATCH: i64 = 2;
const SEQLEN: i64 = 150;
const DIM: i64 = 12;

/// A layer in f64, the same on every rank.
fn layer<L>(make: impl Fn(&Path<'_>) -> L) -> (VarStore, L) {
    tch::manual_seed(11);
    let mut vs = VarStore::new(Device::Cpu);
    let layer = make(&vs.root());
    vs.double();
    (vs, layer)
}

/// The largest difference from the whole sequence in one process: of y, of dx, and of the parameters' gradients; and what
/// the group was given for it.
fn compare<L: SequenceLayer>(
    group: &Group,
    make: impl Fn(&Path<'_>) -> L,
) -> ([f64; 3], gateloop_dist::Traffic) {
    let options = (Kind::Double, Device::Cpu);
    tch::manual_seed(5);
    let x = Tensor::randn([BATCH, SEQLEN, DIM], options);
    let weights = Tensor::randn([BATCH, SEQLEN, DIM], options);

    let (vs, whole) = layer(&make);
    let x_whole = x.copy().set_requires_grad(true);
    let y_whole = whole.forward(&x_whole).unwrap();
    (&y_whole * &weights).sum(Kind::Double).backward();

    let (rank, size) = (group.rank() as i64, group.size() as i64);
    let (start, end) = (SEQLEN * rank / size, SEQLEN * (rank + 1) / size);
    let own = |t: &Tensor| t.narrow(1, start, end - start);
    let (vs_slice, slice) = layer(&make);
    let x_slice = own(&x).copy().set_requires_grad(true);
    let ranks: Arc<dyn SequenceRanks> = Arc::new(group.clone());
    let before = group.traffic();
    let input = LayerInput::from(&x_slice).with_ranks(Some(&ranks));
    let y_slice = slice.forward_of(input).unwrap();
    (&y_slice * own(&weights)).sum(Kind::Double).backward();
    let traffic = group.traffic().since(&before);

    let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
    let mut parameters = 0.0_f64;
    let expected = vs.variables();
    // In one order on all ranks.
    for (name, parameter) in vs_slice.variables().into_iter().collect::<BTreeMap<_, _>>() {
        // Every rank has what its own tokens do to a parameter.
        let grad = parameter.grad();
        group.all_reduce(&grad, gateloop_dist::Reduce::Sum).unwrap();
        let expected = expected[&name].grad();
        let scale = expected.abs().max().double_value(&[]).max(1.0);
        parameters = parameters.max(apart(&grad, &expected) / scale);
    }
    let differences = [
        apart(&y_slice, &own(&y_whole)),
        apart(&x_slice.grad(), &own(&x_whole.grad())),
        parameters,
    ];
    (differences, traffic)
}

fn layers(dist: &Dist) {
    let group = dist.world();
    let check = |name: &str,
                 ([y, dx, parameters], traffic): ([f64; 3], gateloop_dist::Traffic),
                 bytes| {
        println!(
            "{} ranks, {name}: y {y:.1e}, dx {dx:.1e}, parameters {parameters:.1e}; {} all-gathers, {} bytes",
            group.size(),
            traffic.all_gathers,
            traffic.all_gathered_bytes
        );
        assert!(y < 1e-12 && dx < 1e-12 && parameters < 1e-12, "{name} on {} ranks", group.size());
        assert_eq!((traffic.all_gathers, traffic.all_gathered_bytes), (2, bytes), "{name}");
    };
    let (batch, dim) = (BATCH as u64, DIM as u64);
    // Products and states forward, gradients of states backward.
    let simple = |path: &Path<'_>| SimpleGateLoopConfig::new(DIM).init(path).unwrap();
    check("simple gate loop", compare(group, simple), batch * dim * 3 * 8);
    let max_heads = |path: &Path<'_>| GateLoopConfig::new(DIM).init(path).unwrap();
    check("max heads", compare(group, max_heads), batch * dim * 3 * 16);
    let config = GateLoopConfig { heads: Some(3), ..GateLoopConfig::new(DIM) };
    let wide = move |path: &Path<'_>| config.init(path).unwrap();
    // 3 heads of width 4.
    check("3 heads", compare(group, wide), batch * 3 * (4 * 4 * 2 + 1) * 16);
}

#[test]
fn two_ranks() {
    across("two_ranks", 2, layers);
}

#[test]
fn three_ranks() {
    across("three_ranks", 3, layers);
}

#[test]
fn four_ranks() {
    across("four_ranks", 4, layers);
}
