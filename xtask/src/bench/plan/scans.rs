//! The scan, and the speed of memory.

use super::{Group, Role, Side, Who, Work, side};

/// The work of the targets: a long sequence at the width of a model.
pub(crate) const LONG: &str = "scan/forward/f32/1x65536x512";
pub(crate) const LONG_GRADIENT: &str = "scan/gradient/f32/1x65536x512";
pub(crate) const LONG_COMPLEX: &str = "scan/forward/c64/1x65536x512";
pub(crate) const LONG_COMPLEX_GRADIENT: &str = "scan/gradient/c64/1x65536x512";
/// A million tokens of few channels, and as many numbers at the width of a model.
pub(crate) const NARROW: &str = "scan/forward/f32/1x1048576x8";
pub(crate) const AS_MANY: &str = "scan/forward/f32/1x16384x512";
pub(crate) const SMALL: [&str; 3] = ["8x256x512", "1x1024x64", "1x1x512"];

/// Lengths at 512 channels, channels at 4,096 tokens.
pub(crate) const LENGTHS: [usize; 5] = [256, 1024, 4096, 16384, 65536];
pub(crate) const CHANNELS: [usize; 7] = [1, 4, 16, 64, 256, 1024, 2048];

/// What memory gives for arrays far larger than the caches.
pub(super) fn limits() -> Vec<Work> {
    const fn limit(name: &'static str, title: &'static str) -> Side {
        side(name, title, Role::Limit, Who::Ours)
    }
    let sides = [
        limit("copy", "copy"),
        limit("triad", "two read, one written"),
        limit("triad-nt", "two read, one written, non-temporal stores"),
        limit("adjoint", "three read, two written"),
        limit("adjoint-nt", "three read, two written, non-temporal stores"),
        limit("read", "read"),
    ];
    let mut works = vec![Work::time(Group::Limits, "bandwidth/33554432", &sides).quick()];
    let products = [
        limit("forward", "y = x W^T"),
        limit("grad-input", "dx = dy W"),
        limit("grad-weight", "dW = dy^T x"),
    ];
    for shape in [
        "1024x512x256",
        "1024x512x512",
        "1024x512x1024",
        "1024x512x1536",
        "1024x512x2048",
        "1024x2048x512",
    ] {
        works.push(Work::time(Group::Limits, format!("product/{shape}"), &products));
    }
    works
}

pub(super) fn shapes() -> Vec<Work> {
    let ours = [Side::OURS, Side::TRIAD, Side::TRIAD_NT, Side::SCALAR];
    let jax = [Side::JAX_ASSOCIATIVE, Side::JAX_SCAN];
    let with = |more: &[Side]| [&ours[..], more].concat();
    let scan = |name: &str, sides: &[Side]| Work::time(Group::Scan, name, sides);
    let forward =
        with(&[Side::NAIVE, Side::JAX_ASSOCIATIVE, Side::JAX_SCAN, Side::TORCH_ASSOCIATIVE]);
    let gradient = with(&[Side::NAIVE, Side::JAX_ASSOCIATIVE, Side::JAX_SCAN]);
    let mut works = vec![
        scan(LONG, &forward).quick(),
        scan(LONG_GRADIENT, &gradient).quick(),
        scan(LONG_COMPLEX, &with(&jax)),
        scan(LONG_COMPLEX_GRADIENT, &with(&[Side::JAX_ASSOCIATIVE])),
        scan(NARROW, &forward),
        scan(AS_MANY, &ours),
    ];
    for shape in SMALL {
        works.push(scan(&format!("scan/forward/f32/{shape}"), &forward).quick());
        works.push(scan(&format!("scan/gradient/f32/{shape}"), &gradient));
    }
    works
}

/// The sweeps of the plots; what [`shapes`] has measured is not measured again.
pub(super) fn sweeps() -> Vec<Work> {
    let sides = [Side::OURS, Side::TRIAD, Side::TRIAD_NT, Side::SCALAR];
    let peers = [Side::JAX_ASSOCIATIVE, Side::JAX_SCAN];
    let lengths = LENGTHS.map(|t| (by_length(t), [&sides[..], &peers, &[Side::TORCH_ASSOCIATIVE]]));
    let channels = CHANNELS.map(|c| (by_channels(c), [&sides[..], &peers, &[]]));
    let measured: Vec<String> = shapes().into_iter().map(|work| work.name).collect();
    let mut works: Vec<Work> = Vec::new();
    for (name, sides) in lengths.into_iter().chain(channels) {
        if !measured.contains(&name) && works.iter().all(|work| work.name != name) {
            works.push(Work::time(Group::Sweep, name, &sides.concat()));
        }
    }
    works
}

pub(crate) fn by_length(tokens: usize) -> String {
    format!("scan/forward/f32/1x{tokens}x512")
}

pub(crate) fn by_channels(channels: usize) -> String {
    format!("scan/forward/f32/1x4096x{channels}")
}
