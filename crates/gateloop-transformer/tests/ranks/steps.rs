//! Steps of several ranks beside those of one process with all their windows.

use gateloop_dist::testing::{across, is_rank};
use gateloop_dist::{Environment, Traffic};
use gateloop_transformer::config::{Config, DistConfig};
use gateloop_transformer::data::{Corpus, Split, StreamSampler, WindowSampler};
use gateloop_transformer::model::Model;
use gateloop_transformer::ranks::{Ranks, RanksError};
use gateloop_transformer::train::{TrainError, Trainer, Windows};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

const STEPS: u64 = 20;

const SMALL: &str = r#"
[model]
dim = 16
depth = 2
num_tokens = 256
[data]
source = "synthetic:text"
train_bytes = 20000
valid_bytes = 1000
[train]
batch_size = 2
seq_len = 24
grad_accum = 1
lr = 1e-3
weight_decay = 0.1
steps = 1000
threads = 1
device = "cpu"
"#;

fn config(overrides: &[&str]) -> Config {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Config::from_toml_str(SMALL, "a test", &overrides).unwrap()
}

/// A trainer for this rank; `seed` is that of its first parameters.
fn trainer(config: &Config, kind: Kind, ranks: &Arc<Ranks>, seed: u64) -> Trainer {
    tch::set_num_threads(1);
    let corpus = Corpus::open(&config.data).unwrap();
    let (train, share) = (&config.train, ranks.share());
    let windows: Windows = if train.carry_state {
        let streams = train.batch_size * train.grad_accum * share.of;
        let split = StreamSampler::new(&corpus, Split::Train, train.seq_len, streams, 3).unwrap();
        split.carried().shared(share).into()
    } else {
        WindowSampler::new(&corpus, Split::Train, train.seq_len, 3).unwrap().shared(share).into()
    };
    let mut model = Model::seeded(&config.model, Device::Cpu, seed).unwrap();
    model.set_kind(kind);
    Trainer::with_ranks(model, windows, train, (&config.dist, Arc::clone(ranks))).unwrap()
}

/// All parameters, one after the other.
fn parameters(trainer: &Trainer) -> Tensor {
    let parameters = trainer.model().parameters();
    let flat: Vec<Tensor> = parameters.values().map(|p| p.detach().flatten(0, -1)).collect();
    Tensor::cat(&flat, 0).to_kind(Kind::Double)
}

fn meet(config: &Config) -> Arc<Ranks> {
    Arc::new(Ranks::meet(Environment::read().unwrap().unwrap(), config).unwrap())
}

/// Trains on the ranks that this process is one of, and on one process with all windows of a step; gives the largest
/// relative difference of the parameters: of their norms, and the worst of a step's loss and gradient norm.
fn difference(config: &Config, kind: Kind, ranks: &Arc<Ranks>) -> [f64; 3] {
    // Ranks begin differently: the first one's parameters count.
    let mut together = trainer(config, kind, ranks, ranks.rank() as u64);
    let mut whole = config.clone();
    whole.train.batch_size *= ranks.share().of;
    whole.dist = DistConfig::default();
    let mut alone = trainer(&whole, kind, &Arc::new(Ranks::single()), 0);
    let (mut loss, mut norm) = (0.0_f64, 0.0_f64);
    for _ in 0..STEPS {
        let (theirs, own) = (together.train_step().unwrap(), alone.train_step().unwrap());
        loss = loss.max((theirs.loss / own.loss - 1.0).abs());
        norm = norm.max((theirs.grad_norm / own.grad_norm - 1.0).abs());
    }
    let (theirs, own) = (parameters(&together), parameters(&alone));
    let moved = (&own - parameters(&trainer(&whole, kind, &Arc::new(Ranks::single()), 0))).norm();
    assert!(moved.double_value(&[]) > 1e-2, "nothing was learned");
    [((theirs - &own).norm() / own.norm()).double_value(&[]), loss, norm]
}

/// In f64 and in f32.
fn agrees(test: &str, size: usize, overrides: &[&str]) {
    across_ranks(test, size, overrides, |config, ranks| {
        for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 1e-6)] {
            let [parameters, loss, norm] = difference(config, kind, ranks);
            let said = format!(
                "on {size} ranks, {kind:?}: {STEPS} steps: parameters {parameters:.1e}, loss {loss:.1e}, norm {norm:.1e}"
            );
            println!("{said}");
            assert!(parameters < tolerance, "{said}");
            // Losses and norms travel with the gradients, in their kind.
            let tolerance = if kind == Kind::Double { 1e-11 } else { 1e-5 };
            assert!(loss < tolerance && norm < tolerance, "{said}");
        }
    });
}

fn across_ranks(
    test: &str,
    size: usize,
    overrides: &[&str],
    body: impl FnOnce(&Config, &Arc<Ranks>),
) {
    if is_rank() {
        let config = config(overrides);
        println!();
        return body(&config, &meet(&config));
    }
    across(test, size, |_| ());
}

#[test]
fn two_ranks() {
    agrees("steps::two_ranks", 2, &[]);
}

#[test]
fn four_ranks() {
    agrees("steps::four_ranks", 4, &[]);
}

#[test]
fn three_ranks_that_accumulate_and_clip() {
    let overrides = &["train.grad_accum=3", "train.clip_norm=0.01", "dist.bucket_mb=1"];
    agrees("steps::three_ranks_that_accumulate_and_clip", 3, overrides);
}

#[test]
fn two_ranks_with_several_buckets() {
    // Sixty times the parameters of the others, many with a gradient near zero: with a smaller eps, AdamW makes a
    // whole step of its sign, which is a matter of rounding.
    let overrides = &["model.dim=128", "dist.bucket_mb=1", "train.eps=1e-5"];
    agrees("steps::two_ranks_with_several_buckets", 2, overrides);
}

#[test]
fn ranks_of_which_each_has_a_share_of_the_moments() {
    let overrides = &["dist.shard_optimizer=true", "train.transition_lr_frac=0.1"];
    agrees("steps::ranks_of_which_each_has_a_share_of_the_moments", 3, overrides);
}

/// What counts differs from rank to rank.
#[test]
fn ranks_whose_windows_have_unlike_many_answers() {
    let overrides = &[
        "data.source=synthetic:recall",
        "train.loss_on=answers",
        "train.seq_len=60",
        "train.grad_accum=2",
    ];
    agrees("steps::ranks_whose_windows_have_unlike_many_answers", 2, overrides);
}

#[test]
fn ranks_that_carry_states() {
    let overrides = &["train.carry_state=true", "train.window_order=sequential"];
    agrees("steps::ranks_that_carry_states", 2, overrides);
}

#[test]
fn ranks_that_share_sequences() {
    let overrides = &["dist.sequence_ranks=3", "train.seq_len=25"];
    agrees("steps::ranks_that_share_sequences", 3, overrides);
}

#[test]
fn ranks_that_share_sequences_of_wide_heads_and_others_with_other_sequences() {
    let overrides = &[
        "dist.sequence_ranks=2",
        "dist.shard_optimizer=true",
        "model.layers=[\"gate_loop\", \"simple_gate_loop\"]",
        "model.gate_loop_heads=2",
        "train.seq_len=70",
        "train.recompute=true",
    ];
    let test = "steps::ranks_that_share_sequences_of_wide_heads_and_others_with_other_sequences";
    agrees(test, 4, overrides);
}

/// What a step of a rank is sent for: its gradients, and three numbers.
#[test]
fn what_is_sent_is_what_must_be() {
    let overrides = ["dist.check_every=0", "train.grad_accum=3"];
    across_ranks("steps::what_is_sent_is_what_must_be", 2, &overrides, |config, ranks| {
        for shard in [false, true] {
            let mut config = config.clone();
            config.dist.shard_optimizer = shard;
            let mut trainer = trainer(&config, Kind::Float, ranks, 0);
            let numel = parameters(&trainer).numel() as u64;
            for _ in 0..3 {
                let before = ranks.world().traffic();
                trainer.train_step().unwrap();
                // Updated parameters: each rank's half.
                let gathers = u64::from(shard);
                let expected = Traffic {
                    all_reduces: 1,
                    all_reduced_bytes: 4 * (numel + 3),
                    all_gathers: gathers,
                    all_gathered_bytes: gathers * 4 * numel.div_ceil(2),
                    ..Traffic::default()
                };
                assert_eq!(ranks.world().traffic().since(&before), expected);
            }
        }
        // The same bytes in more messages.
        let mut config = config.clone();
        (config.model.dim, config.dist.bucket_mb) = (128, 1);
        let mut trainer = trainer(&config, Kind::Float, ranks, 0);
        let numel = parameters(&trainer).numel() as u64;
        let before = ranks.world().traffic();
        trainer.train_step().unwrap();
        let sent = ranks.world().traffic().since(&before);
        assert!(sent.all_reduces > 1 && sent.all_reduces <= 4 * numel / (1 << 19), "{sent:?}");
        assert_eq!(sent.all_reduced_bytes, 4 * (numel + 3));
    });
}

/// What a layer of a rank is sent for: the state, the product of the decays, and the state's gradient.
#[test]
fn what_is_sent_for_a_shared_sequence_does_not_grow_with_it() {
    const TEST: &str = "steps::what_is_sent_for_a_shared_sequence_does_not_grow_with_it";
    across_ranks(TEST, 2, &["dist.sequence_ranks=2", "dist.check_every=0"], |config, ranks| {
        let (batch, dim, depth) = (2, 16, 2);
        for seq_len in [24, 96] {
            let mut config = config.clone();
            config.train.seq_len = seq_len;
            let mut trainer = trainer(&config, Kind::Float, ranks, 0);
            let before = ranks.sequence().traffic();
            trainer.train_step().unwrap();
            let sent = ranks.sequence().traffic().since(&before);
            // Complex numbers of f32: a product and a state forward, a state backward.
            assert_eq!(sent.all_gathers, 2 * depth);
            assert_eq!(sent.all_gathered_bytes, depth * batch * dim * 3 * 8);
        }
    });
}

#[test]
fn a_rank_that_computes_something_else_is_found() {
    const TEST: &str = "steps::a_rank_that_computes_something_else_is_found";
    across_ranks(TEST, 3, &["dist.check_every=4"], |config, ranks| {
        let mut trainer = trainer(config, Kind::Float, ranks, 0);
        for _ in 0..5 {
            trainer.train_step().unwrap();
        }
        if ranks.rank() == 1 {
            let parameters = trainer.model().parameters();
            let parameter = parameters.values().next().unwrap().detach();
            let _ = parameter.flatten(0, -1).get(0).g_add_scalar_(1e-3);
        }
        let error = (0..4).find_map(|_| trainer.train_step().err()).unwrap();
        let TrainError::Ranks(RanksError::Diverged { step, ranks }) = error else {
            panic!("{error}")
        };
        assert_eq!((step, ranks), (8, vec![1]));
    });
}
