//! The chunkwise form, for heads of any width: matrix products within chunks of the sequence and a
//! scan of the states at their ends. On the CPU one function does it all ([`heads`]); elsewhere they are libtorch's
//! products, as follows.
//!
//! With g and p the sums of ln|a| and arg a from the start of a chunk up to and including a token,
//!
//! ```text
//! y[i] = sum_{j<=i} e^{g[i]-g[j]} cos(p[i]-p[j]) (q[i].k[j]) v[j] + q[i] Re(e^{g[i]+ip[i]} S_in)
//! ```
//!
//! and `q Re(e^{g+ip} S)` is one product of `[q e^g cos p, q e^g sin p]` with `[Re S; -Im S]`. Derivation: docs/math.md.
//! What is not a product is in [`between`](super::between). Every exponent is a sum of ln|a| over a range of tokens, never
//! positive.

use super::between::{Sums, turn};
use super::heads;
use super::operator::{Before, Dims, Operands, state_or_zeros};
use super::polar::exp_polar;
use super::within::within_chunk;
use crate::device::on_cpu;
use crate::error::Result;
use crate::scan::{ScanOptions, scan, scan_over_ranks};
use tch::{Kind, Tensor};

/// Shorter chunks leave the matrix products too small to run at speed.
const MIN_CHUNK: i64 = 64;

/// The length of a chunk. The states at chunk ends take T / `chunk_len` x `head_dim`^2 numbers a
/// head, so chunks as long as a head is wide keep memory at T x `head_dim`, like the operands.
pub(super) fn chunk_len(dims: &Dims) -> i64 {
    dims.head_dim.max(MIN_CHUNK).min(dims.seqlen)
}

/// The operands cut into N chunks of C tokens, the last one padded with a = 1, k = 0.
struct Chunks {
    q: Tensor, // [B, H, N, C, d], so are k and v
    k: Tensor,
    v: Tensor,
    log_a: Tensor, // [B, H, N, C], double: sums from the start of the chunk
    phase: Tensor, // the same of the phases
    n: i64,
}

impl Chunks {
    fn sums(&self) -> Sums<'_> {
        Sums { log_a: &self.log_a, phase: &self.phase }
    }
}

/// `y` and the last state.
pub(super) fn run(
    operands: &Operands<'_>,
    before: Before<'_>,
    dims: &Dims,
    chunk_len: i64,
) -> Result<(Tensor, Tensor)> {
    if on_cpu(operands.q) {
        heads::run(operands, before, dims, chunk_len)
    } else {
        run_in_products(operands, before, dims, chunk_len)
    }
}

/// The same in libtorch's operations.
fn run_in_products(
    operands: &Operands<'_>,
    before: Before<'_>,
    dims: &Dims,
    chunk_len: i64,
) -> Result<(Tensor, Tensor)> {
    let chunks = cut(operands, dims, chunk_len)?;
    let (entry, last) = states(&chunks, before, dims)?;
    let within = within_chunk([&chunks.q, &chunks.k, &chunks.v], chunks.sums())?;
    let from_state = turn(&chunks.q, chunks.sums())?.f_matmul(&entry)?;
    let y = within
        .f_add(&from_state)?
        .f_flatten(2, 3)? // [B, H, N C, d]
        .f_narrow(2, 0, dims.seqlen)?
        .f_transpose(1, 2)?
        .f_reshape([dims.batch, dims.seqlen, dims.heads * dims.head_dim])?;
    Ok((y, last))
}

fn cut(operands: &Operands<'_>, dims: &Dims, chunk_len: i64) -> Result<Chunks> {
    let n = dims.seqlen.div_euclid(chunk_len) + i64::from(dims.seqlen % chunk_len != 0);
    let padding = n * chunk_len - dims.seqlen;
    let tokens = |x: &Tensor| {
        x.f_reshape([dims.batch, dims.seqlen, dims.heads, dims.head_dim])?
            .f_transpose(1, 2)?
            .f_constant_pad_nd([0, 0, 0, padding])?
            .f_reshape([dims.batch, dims.heads, n, chunk_len, dims.head_dim])
    };
    let sums = |x: &Tensor| {
        x.f_transpose(1, 2)?
            .f_constant_pad_nd([0, padding])?
            .f_reshape([dims.batch, dims.heads, n, chunk_len])?
            .f_cumsum(-1, Kind::Double)
    };
    Ok(Chunks {
        q: tokens(operands.q)?,
        k: tokens(operands.k)?,
        v: tokens(operands.v)?,
        log_a: sums(operands.transition.log_magnitude())?,
        phase: sums(operands.transition.phase())?,
        n,
    })
}

/// The state before each chunk, as the stacked real matrix [Re S; -Im S] of [B, H, N, 2d, d] that
/// meets the rotated queries, and the state after the last chunk, complex [B, H, d, d].
fn states(chunks: &Chunks, before: Before<'_>, dims: &Dims) -> Result<(Tensor, Tensor)> {
    let Dims { batch, heads, head_dim: d, .. } = *dims;
    let total_log_a = chunks.log_a.f_narrow(-1, -1, 1)?; // [B, H, N, 1]
    let total_phase = chunks.phase.f_narrow(-1, -1, 1)?;

    // What the tokens leave at the end of their chunk: e^{(g_C - g) + i (p_C - p)} k^T v, both parts in one product.
    let (log_a, phase) = (total_log_a.f_sub(&chunks.log_a)?, total_phase.f_sub(&chunks.phase)?);
    let turned = turn(&chunks.k, Sums { log_a: &log_a, phase: &phase })?;
    let parts = turned.f_transpose(-2, -1)?.f_matmul(&chunks.v)?.f_chunk(2, -2)?; // [B, H, N, d, d]
    let added = Tensor::f_complex(&parts[0], &parts[1])?;

    // The states at chunk ends are a diagonal scan over the chunks.
    let flat = [batch * heads, chunks.n, d * d];
    let decay = exp_polar(&total_log_a, &total_phase)?
        .f_to_kind(added.kind())?
        .f_view([batch * heads, chunks.n, 1])?
        .f_expand(flat, false)?;
    let added = added.f_reshape(flat)?;
    let (h0, h, last) = match before {
        Before::State(state) => {
            let h0 = state_or_zeros(state, &chunks.q, dims)?.f_reshape([batch * heads, d * d])?;
            let (h, last) = scan(&decay, &added, Some(&h0))?;
            (h0, h, last)
        }
        Before::Ranks(ranks) => {
            // The decays lie once a head in memory, which is how they are sent.
            let slice = scan_over_ranks(&decay, &added, None, &ScanOptions::default(), ranks)?;
            (slice.h_entry, slice.h, slice.h_last)
        }
    };

    let before = Tensor::f_cat(&[h0.f_unsqueeze(1)?, h.f_narrow(1, 0, chunks.n - 1)?], 1)?
        .f_view([batch, heads, chunks.n, d, d])?;
    let entry = Tensor::f_cat(&[before.f_real()?, before.f_imag()?.f_neg()?], -2)?;
    Ok((entry, last.f_view(dims.state())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate_loop::StateTransition;
    use tch::Device;

    const DIMS: Dims = Dims { batch: 2, seqlen: 150, heads: 3, head_dim: 5 };

    /// q, k, v, the decay's size and phase, and the state's parts, for both ways alike: other tests
    /// of this process draw from the same generator, so no seed would draw the same numbers twice.
    fn numbers(kind: Kind) -> Result<Vec<Tensor>> {
        let Dims { batch, seqlen, heads, head_dim: d } = DIMS;
        let tokens = [batch, seqlen, heads * d];
        let decays = [batch, seqlen, heads];
        let state = [batch, heads, d, d, 2];
        let shapes: [&[i64]; 6] = [&tokens, &tokens, &tokens, &decays, &decays, &state];
        shapes.iter().map(|shape| Ok(Tensor::f_randn(*shape, (kind, Device::Cpu))?)).collect()
    }

    /// y, the last state's parts and the gradients of all operands.
    fn everything(in_products: bool, numbers: &[Tensor], kind: Kind) -> Result<Vec<Tensor>> {
        let leaves = numbers
            .iter()
            .map(|x| Ok(x.f_detach_copy()?.f_set_requires_grad(true)?))
            .collect::<Result<Vec<_>>>()?;
        let [q, k, v, size, phase, parts] = &leaves[..] else { unreachable!("six operands") };
        let transition = StateTransition::from_polar(&size.f_softplus()?.f_neg()?, phase)?;
        let operands = Operands { q, k, v, transition: &transition };
        let state = parts.f_view_as_complex()?;
        let run = if in_products { run_in_products } else { run };
        let (y, last) = run(&operands, Before::State(Some(&state)), &DIMS, 64)?;
        let last = last.f_view_as_real()?;
        let loss = (y.f_square()?.f_sum(kind)?).f_add(&last.f_square()?.f_sum(kind)?)?;
        let grads = Tensor::f_run_backward(&[loss], &leaves, false, false)?;
        Ok([y, last].into_iter().chain(grads).collect())
    }

    #[test]
    fn both_ways_are_one_function() -> Result<()> {
        for (kind, bound) in [(Kind::Double, 1e-13), (Kind::Float, 5e-6)] {
            let numbers = numbers(kind)?;
            let kernels = everything(false, &numbers, kind)?;
            let pairs = everything(true, &numbers, kind)?.into_iter().zip(kernels);
            for (i, (products, kernels)) in pairs.enumerate() {
                let scale = products.f_abs()?.f_max()?.f_double_value(&[])?;
                let error = (products - kernels).f_abs()?.f_max()?.f_double_value(&[])?;
                assert!(error <= bound * scale, "{kind:?} {i}: {error} of {scale}");
            }
        }
        Ok(())
    }
}
