//! What lies between the matrix products of wider heads, for CUDA tensors.

use super::memory::{Place, address, dtype};
use crate::error::{NnError, Result};
use crate::gate_loop::between::Sums;
use crate::lean::with_width;
use gateloop_scan::cuda::{TurnAdjointArgs, TurnArgs, WeighAdjointArgs, WeighArgs};
use tch::{Kind, Tensor};

/// Scores with the sums of their tokens, as the kernels take them.
struct Pairs {
    place: Place,
    args: WeighArgs,
    /// What `args` points to.
    _sums: [Tensor; 2],
}

impl Pairs {
    fn new(scores: &Tensor, sums: Sums<'_>) -> Result<Self> {
        let place = Place::of("scores", scores)?;
        let tokens = sums.log_a.size();
        let chunk_len = tokens.last().copied().unwrap_or(1);
        let expected: Vec<i64> = tokens.iter().copied().chain([chunk_len]).collect();
        in_place("scores", scores, &expected)?;
        let sums = of_tokens(&place, sums, &tokens)?;
        let args = WeighArgs {
            dtype: dtype("scores", scores.kind())?,
            chunks: sums[0].numel() / chunk_len.max(1) as usize,
            chunk_len: chunk_len as usize,
            scores: address(scores),
            log_a: address(&sums[0]),
            phase: address(&sums[1]),
        };
        Ok(Self { place, args, _sums: sums })
    }
}

/// Weighs scores [.., C, C], contiguous, in place.
pub(crate) fn weigh(scores: &Tensor, sums: Sums<'_>) -> Result<()> {
    let Pairs { place, args, _sums } = Pairs::new(scores, sums)?;
    // SAFETY: the tensors have the sizes that are told and are alive until the launch is in the stream; torch reuses
    // their memory in stream order only.
    unsafe { place.cuda.weigh(place.stream, &args) }?;
    Ok(())
}

/// The gradients of g and p, double [.., C]; the scores become the weighed ones, and the gradient of those becomes that of
/// the scores, both [.., C, C] and contiguous.
pub(crate) fn weigh_adjoint(
    scores: &Tensor,
    dweighed: &Tensor,
    sums: Sums<'_>,
) -> Result<[Tensor; 2]> {
    let Pairs { place, args: forward, _sums } = Pairs::new(scores, sums)?;
    let dscores = place.plain("dscores", dweighed, scores.kind())?;
    in_place("dscores", dweighed, &scores.size())?;
    let (c, tiles) = (forward.chunk_len, WeighAdjointArgs::tiles(forward.chunk_len));
    let dims = [forward.chunks as i64, tiles as i64, c as i64];
    let part = || place.empty(&dims, Kind::Double);
    let [log_later, log_earlier, phase_later, phase_earlier] = [part()?, part()?, part()?, part()?];
    let args = WeighAdjointArgs {
        forward,
        dscores: address(&dscores),
        log_later: address(&log_later),
        log_earlier: address(&log_earlier),
        phase_later: address(&phase_later),
        phase_earlier: address(&phase_earlier),
    };
    // SAFETY: as in `weigh`.
    unsafe { place.cuda.weigh_adjoint(place.stream, &args) }?;
    let of_tokens = |later: &Tensor, earlier: &Tensor| -> Result<Tensor> {
        let sum = |parts: &Tensor| parts.f_sum_dim_intlist(1, false, Kind::Double);
        Ok(sum(later)?.f_sub_(&sum(earlier)?)?.f_view_as(sums.log_a)?)
    };
    Ok([of_tokens(&log_later, &log_earlier)?, of_tokens(&phase_later, &phase_earlier)?])
}

/// [x e^g cos p, x e^g sin p], [.., C, 2 d], from x [.., C, d].
pub(crate) fn turn(x: &Tensor, sums: Sums<'_>) -> Result<Tensor> {
    let rows = Rows::new(x, sums)?;
    let y = rows.place.empty(&with_width(x, 2 * rows.args.width as i64), x.kind())?;
    let args = TurnArgs { y: address(&y), ..rows.args };
    // SAFETY: as in `weigh`.
    unsafe { rows.place.cuda.turn(rows.place.stream, &args) }?;
    Ok(y)
}

/// The gradients of x, of its kind, and of g and p, double [.., C], from that of what [`turn`] gave.
pub(crate) fn turn_adjoint(x: &Tensor, dy: &Tensor, sums: Sums<'_>) -> Result<[Tensor; 3]> {
    let rows = Rows::new(x, sums)?;
    let place = &rows.place;
    let dy = place.plain("dy", dy, x.kind())?.f_contiguous()?;
    let dx = place.empty(&x.size(), x.kind())?;
    let of_tokens = || place.empty(&sums.log_a.size(), Kind::Double);
    let (dlog_a, dphase) = (of_tokens()?, of_tokens()?);
    let args = TurnAdjointArgs {
        forward: rows.args,
        dy: address(&dy),
        dx: address(&dx),
        dlog_a: address(&dlog_a),
        dphase: address(&dphase),
    };
    // SAFETY: as in `weigh`.
    unsafe { place.cuda.turn_adjoint(place.stream, &args) }?;
    Ok([dx, dlog_a, dphase])
}

/// Rows with the sums of their tokens, as the kernels take them.
struct Rows {
    place: Place,
    args: TurnArgs,
    /// What `args` points to.
    _tensors: [Tensor; 3],
}

impl Rows {
    fn new(x: &Tensor, sums: Sums<'_>) -> Result<Self> {
        let place = Place::of("x", x)?;
        let dtype = dtype("x", x.kind())?;
        let (width, tokens) = match x.size().split_last() {
            Some((&width, tokens)) => (width as usize, tokens.to_vec()),
            None => return Err(shape("x", "[.., C, d]", x)),
        };
        let x = place.plain("x", x, x.kind())?.f_contiguous()?;
        let [log_a, phase] = of_tokens(&place, sums, &tokens)?;
        let args = TurnArgs {
            dtype,
            rows: log_a.numel(),
            width,
            x: address(&x),
            log_a: address(&log_a),
            phase: address(&phase),
            y: 0,
        };
        Ok(Self { place, args, _tensors: [x, log_a, phase] })
    }
}

/// g and p, contiguous.
fn of_tokens(place: &Place, sums: Sums<'_>, tokens: &[i64]) -> Result<[Tensor; 2]> {
    let of = |operand, tensor: &Tensor| {
        if tensor.size() != tokens {
            return Err(shape(operand, &format!("{tokens:?}"), tensor));
        }
        Ok(place.plain(operand, tensor, Kind::Double)?.f_contiguous()?)
    };
    Ok([of("log_a", sums.log_a)?, of("phase", sums.phase)?])
}

/// Refuses what cannot be written in its place.
fn in_place(operand: &'static str, tensor: &Tensor, dims: &[i64]) -> Result<()> {
    if tensor.size() != dims || !tensor.is_contiguous() {
        return Err(shape(operand, &format!("{dims:?}, contiguous"), tensor));
    }
    Ok(())
}

fn shape(operand: &'static str, expected: &str, actual: &Tensor) -> NnError {
    NnError::Shape { operand, expected: expected.to_owned(), actual: actual.size() }
}
