//! Tensors in the pool. One test in one process: the pool is the process's, and so is its usage.

mod common;

use common::TestResult;
use gateloop_nn::pool::{self, Usage};
use std::fs;
use std::thread;
use tch::{Device, Kind, Tensor};

/// A megabyte, in elements.
const MEGABYTE: i64 = 1 << 18;

fn filled(megabytes: i64, value: f64) -> Tensor {
    Tensor::full([megabytes * MEGABYTE], value, (Kind::Float, Device::Cpu))
}

fn usage() -> Usage {
    pool::usage().expect("the pool is installed")
}

/// Resident bytes of this process, where the system says.
fn resident() -> Option<usize> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split_whitespace().nth(1)?.parse::<usize>().ok()? * 4096)
}

#[test]
fn tensors_lie_in_the_pool_and_give_it_back() -> TestResult {
    assert_eq!(pool::usage(), None);
    pool::release_unused();
    let older = filled(1, 7.0);
    pool::install()?;
    pool::install()?;
    assert_eq!(usage(), Usage::default());

    // Small ones do not, nor do those that were there; both go where they came from.
    let small = Tensor::ones([100], (Kind::Float, Device::Cpu));
    drop((older, small));
    assert_eq!(usage().live, 0);

    // The same memory again, and what lies in it is what was written.
    let kept = filled(2, 1.0);
    let base = kept.data_ptr();
    let address = filled(3, 2.0).data_ptr();
    let again = filled(3, 3.0);
    assert_eq!(again.data_ptr(), address);
    assert_eq!((usage().live, usage().peak), (5 << 20, 5 << 20));
    assert_eq!(again.sum(Kind::Double).double_value(&[]), (9 * MEGABYTE) as f64);
    assert_eq!(kept.sum(Kind::Double).double_value(&[]), (2 * MEGABYTE) as f64);
    assert_eq!(kept.data_ptr(), base);

    // A tensor resized, copied and sent to another thread, which drops it.
    let mut grown = again.copy();
    let _ = grown.resize_([8 * MEGABYTE]);
    thread::spawn(move || drop(grown)).join().map_err(|_| "a thread failed")?;
    drop(again);
    assert_eq!(usage().live, 2 << 20);

    // Many threads at once, each with its own values in its own memory.
    thread::scope(|scope| {
        for worker in 0..4 {
            scope.spawn(move || {
                for round in 0..50 {
                    let size = 1 + (worker + round) % 5;
                    let value = f64::from(u8::try_from(worker * 50 + round).unwrap());
                    let tensors = [filled(size, value), filled(1, value + 0.5)];
                    let same = tensors[0].eq(value).all().int64_value(&[]) == 1;
                    let other = tensors[1].eq(value + 0.5).all().int64_value(&[]) == 1;
                    assert!(same && other, "worker {worker}, round {round}");
                }
            });
        }
    });
    assert_eq!(usage().live, 2 << 20);

    // What nobody holds goes back to the system when asked for, and what somebody holds stays.
    drop(filled(256, 1.0));
    let before = resident();
    pool::release_unused();
    if let (Some(before), Some(after)) = (before, resident()) {
        assert!(before - after >= 250 << 20, "{before} {after}");
    }
    assert_eq!(usage().reach, 2 << 20);
    assert_eq!(kept.sum(Kind::Double).double_value(&[]), (2 * MEGABYTE) as f64);

    // More than the machine has is refused as ever.
    let whole = Tensor::f_empty([1 << 46], (Kind::Float, Device::Cpu));
    assert!(whole.is_err());
    Ok(())
}
