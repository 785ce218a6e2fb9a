//! Reproducible numbers. libtorch's generator is one for the process and the tests run in parallel,
//! so a seed set there would mean nothing.

use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Numbers in [-1, 1] that depend on the seed alone (the splitmix64 generator).
pub(crate) fn uniform(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0xD134_2543_DE82_EF95);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64 * 2.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// A tensor of numbers in [-1, 1]; of complex numbers with both parts in that range.
pub(crate) fn tensor(shape: &[i64], kind: Kind, seed: u64) -> Tensor {
    let len = shape.iter().product::<i64>() as usize;
    if matches!(kind, Kind::ComplexFloat | Kind::ComplexDouble) {
        let parts = Tensor::from_slice(&uniform(2 * len, seed));
        return parts.view([len as i64, 2]).view_as_complex().reshape(shape).to_kind(kind);
    }
    Tensor::from_slice(&uniform(len, seed)).reshape(shape).to_kind(kind)
}

/// A copy of `tensor` whose gradient is recorded.
pub(crate) fn leaf(tensor: &Tensor) -> Tensor {
    tensor.detach().copy().set_requires_grad(true)
}

/// Overwrites every parameter with numbers that depend on its name alone.
///
/// Matrices get numbers of the size that initialisation gives them, vectors (biases, norm weights)
/// numbers up to 1, so that none of them is neutral.
pub(crate) fn fill_parameters(vs: &VarStore) {
    for (name, mut parameter) in vs.variables() {
        let seed = name.bytes().fold(7, |hash: u64, byte| hash * 31 % 1_000_003 + u64::from(byte));
        let shape = parameter.size();
        let bound = if shape.len() == 2 { 1.0 / (shape[1] as f64).sqrt() } else { 1.0 };
        let fresh = tensor(&shape, parameter.kind(), seed) * bound;
        tch::no_grad(|| parameter.copy_(&fresh));
    }
}
