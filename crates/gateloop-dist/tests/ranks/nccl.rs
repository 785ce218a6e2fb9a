//! NCCL, as far as the build and the machine have it: an error otherwise.

use crate::{error, report};
use gateloop_dist::local::{Ended, Ranks, free_port};
use gateloop_dist::testing::{impatient, is_rank, options, program, told};
use gateloop_dist::{Backend, Dist, DistError, Options, Reduce, has_nccl};
use std::time::Duration;
use tch::{Cuda, Device, Kind, Tensor};

/// A rank that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(90);

fn meet() -> Result<Dist, DistError> {
    Dist::from_env(&Options { backend: Backend::Nccl, ..options() })
}

/// What a rank says that has to end by itself, without being torn down.
fn said(ended: &Ended) -> &str {
    assert!(ended.is_success(), "{}", told(ended));
    error(ended).unwrap_or_else(|| panic!("{}", told(ended)))
}

#[test]
fn a_rank_without_a_device() {
    const TEST: &str = "nccl::a_rank_without_a_device";
    if is_rank() {
        report(meet());
        return;
    }
    // One rank more than there are devices.
    let devices = usize::try_from(Cuda::device_count()).unwrap();
    let size = if has_nccl() { (devices + 1).max(2) } else { 2 };
    let ranks = Ranks::start(size, free_port().unwrap(), |_| impatient(TEST, 20)).unwrap();
    let ended = ranks.wait(LIMIT).unwrap();
    let why = match (has_nccl(), devices) {
        (false, _) => "this program was built without it; build with the feature `dist-nccl`",
        (true, 0) => "no CUDA device: start the ranks where there are GPUs",
        (true, _) => "fewer CUDA devices than LOCAL_RANK needs: start a rank for each",
    };
    let why = format!("the backend nccl is not to be had: {why}");
    for (rank, ended) in ended.iter().enumerate() {
        let said = said(ended);
        if has_nccl() && rank < devices {
            // It has a device, but hears of the one that has none.
            assert!(said.contains(&format!("rank {devices} ended: {why}")), "{said}");
        } else {
            assert!(said.starts_with(&why), "{said}");
        }
    }
}

/// Each on a device of its own.
fn operations(dist: &Dist) {
    let (group, device) = (dist.world(), Device::Cuda(dist.local_rank()));
    let (rank, size) = (group.rank() as i64, group.size() as i64);
    let own = || Tensor::full([1 << 16], rank + 1, (Kind::Float, device));
    let is_all = |tensor: &Tensor, value: i64| bool::try_from(tensor.eq(value).all()).unwrap();
    for (reduce, expected) in
        [(Reduce::Sum, size * (size + 1) / 2), (Reduce::Max, size), (Reduce::Min, 1)]
    {
        let x = own();
        group.all_reduce(&x, reduce).unwrap();
        assert!(is_all(&x, expected), "{reduce:?}");
    }
    let gathered = group.all_gather(&own()).unwrap();
    for other in 0..size {
        assert!(is_all(&gathered.get(other), other + 1));
    }
    let sent = own();
    group.broadcast(&sent, 1).unwrap();
    assert!(is_all(&sent, 2));
    group.barrier().unwrap();
}

#[test]
fn two_ranks() {
    if is_rank() {
        return operations(&meet().unwrap());
    }
    let why = match (has_nccl(), Cuda::device_count()) {
        (false, _) => "built without NCCL",
        (true, 0) => "no CUDA device",
        (true, 1) => "one CUDA device, and NCCL wants one for each of two ranks",
        (true, _) => {
            let command = |_| program("nccl::two_ranks");
            let ranks = Ranks::start(2, free_port().unwrap(), command).unwrap();
            for ended in ranks.wait(LIMIT).unwrap() {
                assert!(ended.is_success(), "{}", told(&ended));
            }
            return;
        }
    };
    println!("skipped: {why}");
}
