//! What the operations compute.

use gateloop_dist::testing::across;
use gateloop_dist::{Dist, DistError, Group, Options, Reduce, Traffic};
use tch::{Device, Kind, Tensor};

/// Numbers that differ from rank to rank.
fn own(rank: usize, len: i64, kind: Kind) -> Tensor {
    (Tensor::arange(len, (Kind::Double, Device::Cpu)) * 0.25 + (rank + 1) as f64).to_kind(kind)
}

fn reduces(dist: &Dist) {
    let group = dist.world();
    let n = group.size();
    for kind in [Kind::Float, Kind::Double, Kind::Int64] {
        // More than a ring has pieces, and fewer.
        for len in [1, 2, 7, 1000] {
            let all: Vec<Tensor> = (0..n).map(|rank| own(rank, len, kind)).collect();
            let all = Tensor::stack(&all, 0);
            for (reduce, expected) in [
                (Reduce::Sum, all.sum_dim_intlist(0, false, kind)),
                (Reduce::Max, all.amax(0, false)),
                (Reduce::Min, all.amin(0, false)),
            ] {
                let mine = own(group.rank(), len, kind);
                group.all_reduce(&mine, reduce).unwrap();
                // Sums of a few quarters are exact.
                assert_eq!(mine, expected, "{reduce:?} {kind:?} {len}");
            }
        }
    }
}

fn gathers_and_broadcasts(dist: &Dist) {
    let group = dist.world();
    for kind in [Kind::Float, Kind::Double, Kind::Int64, Kind::Uint8] {
        let mine = own(group.rank(), 6, kind).view([2, 3]).transpose(0, 1);
        let gathered = group.all_gather(&mine).unwrap();
        assert_eq!(gathered.size(), [group.size() as i64, 3, 2]);
        for rank in 0..group.size() {
            let theirs = own(rank, 6, kind).view([2, 3]).transpose(0, 1);
            assert_eq!(gathered.get(rank as i64), theirs, "{kind:?} {rank}");
            let sent = mine.contiguous();
            group.broadcast(&sent, rank).unwrap();
            assert_eq!(sent, theirs);
        }
    }
    group.barrier().unwrap();
}

/// Two operations at once, and the counts of all.
fn works_overlap_and_are_counted(dist: &Dist) {
    let group = dist.world();
    let before = group.traffic();
    let tensors = [own(group.rank(), 5, Kind::Float), own(group.rank(), 3, Kind::Double)];
    let works = tensors.each_ref().map(|t| group.begin_all_reduce(t, Reduce::Sum).unwrap());
    for work in works {
        work.wait().unwrap();
    }
    let ranks = (group.size() * (group.size() + 1) / 2) as f64;
    assert_eq!(tensors[1].double_value(&[0]), ranks);
    let _ = group.all_gather(&tensors[1]).unwrap();
    group.broadcast(&tensors[0], 0).unwrap();
    let expected = Traffic {
        all_reduces: 2,
        all_reduced_bytes: 5 * 4 + 3 * 8,
        all_gathers: 1,
        all_gathered_bytes: 3 * 8,
        broadcasts: 1,
        broadcast_bytes: 5 * 4,
    };
    assert_eq!(group.traffic().since(&before), expected);
}

fn operands_are_checked(dist: &Dist) {
    let group = dist.world();
    let across = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).transpose(0, 1);
    let refused = |result: Result<(), DistError>, operand: &str| {
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with(&format!("`{operand}` is")), "{text}");
    };
    refused(group.all_reduce(&across, Reduce::Sum), "tensor");
    refused(group.all_reduce(&Tensor::new(), Reduce::Sum), "tensor");
    refused(group.broadcast(&across, 0), "tensor");
    refused(group.broadcast(&Tensor::from(1.0), group.size()), "root");
    refused(dist.neighbours(0).map(|_| ()), "size");
    refused(dist.counterparts(group.size() + 1).map(|_| ()), "size");
}

fn values_agree(dist: &Dist) {
    dist.agree("same", "alike").unwrap();
    // Nothing is left of what was said before.
    dist.agree("same", "as ever").unwrap();
    let own = format!("from {}", dist.world().rank());
    assert_eq!(dist.hear_first("word", &own).unwrap(), "from 0");
    let rank = dist.world().rank();
    let value = if rank == 1 { "odd" } else { "even" };
    let text = dist.agree("parity", value).unwrap_err().to_string();
    let other = i32::from(rank != 1);
    assert!(text.starts_with(&format!("rank {other} has parity ")), "{text}");
}

#[test]
fn two_ranks() {
    across("operations::two_ranks", 2, |dist| {
        reduces(dist);
        gathers_and_broadcasts(dist);
        works_overlap_and_are_counted(dist);
        operands_are_checked(dist);
        values_agree(dist);
    });
}

#[test]
fn three_ranks() {
    across("operations::three_ranks", 3, |dist| {
        reduces(dist);
        gathers_and_broadcasts(dist);
        works_overlap_and_are_counted(dist);
        values_agree(dist);
    });
}

#[test]
fn smaller_groups() {
    across("operations::smaller_groups", 4, |dist| {
        let rank = dist.world().rank();
        let sum = |group: &Group| {
            let total = Tensor::from(rank as f64);
            group.all_reduce(&total, Reduce::Sum).unwrap();
            total.double_value(&[])
        };
        let (pair, across) = (dist.neighbours(2).unwrap(), dist.counterparts(2).unwrap());
        assert_eq!(pair.members(), [rank / 2 * 2, rank / 2 * 2 + 1]);
        assert_eq!(across.members(), [rank % 2, rank % 2 + 2]);
        assert_eq!((pair.rank(), across.rank()), (rank % 2, rank / 2));
        for _ in 0..3 {
            assert_eq!(sum(&pair), [1.0, 5.0][rank / 2]);
            assert_eq!(sum(&across), [2.0, 4.0][rank % 2]);
        }
        // Of all ranks it is the world, of one it is nobody else.
        assert_eq!(sum(&dist.neighbours(4).unwrap()), 6.0);
        assert_eq!(sum(&dist.counterparts(4).unwrap()), rank as f64);
        assert_eq!(sum(&dist.neighbours(1).unwrap()), rank as f64);
    });
}

#[test]
fn one_process_is_alone() {
    let dist = Dist::from_env(&Options::default()).unwrap();
    let group = dist.world();
    assert_eq!((group.rank(), group.size(), dist.is_first()), (0, 1, true));
    let x = own(0, 4, Kind::Float);
    group.all_reduce(&x, Reduce::Sum).unwrap();
    group.broadcast(&x, 0).unwrap();
    group.barrier().unwrap();
    assert_eq!(x, own(0, 4, Kind::Float));
    assert_eq!(group.all_gather(&x).unwrap(), x.unsqueeze(0));
    assert_eq!(group.traffic(), Traffic::default());
    dist.agree("anything", "at all").unwrap();
    assert_eq!(dist.neighbours(1).unwrap().size(), 1);
}
