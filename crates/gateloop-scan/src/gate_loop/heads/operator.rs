//! The operator to be run: borrowed operands, checked once.

use crate::chunked::dispatch::Level;
use crate::chunked::output::Output;
use crate::error::check_len;
use crate::parallel::Rayon;
use crate::{Complex, ParallelFor, ScanElement, ScanError, ScanShape};

use super::super::real::Real;
use super::super::rows::{Rows, RowsMut};
use super::adjoint::Gradients;
use super::compiled::Heads;
use super::decays::{Decays, Wide};
use super::forward::Outputs;
use super::site::{Dims, Site, for_each_chunk};
use super::states::{Additions, Carry, Way};

/// Shorter chunks leave products too small to run at speed.
const MIN_CHUNK_LEN: usize = 64;

/// `S[t] = a[t] S[t-1] + k[t]^T v[t]`, `y[t] = q[t] Re(S[t])` for every head, with states of `d x d` complex numbers.
///
/// Time and memory grow with T; training keeps the operands and the states at the chunks' ends, which with chunks at
/// least as long as heads are wide are no more than two of the operands. Results do not depend on the number of threads,
/// and those of a token not on later tokens; in the last digits they do on the instruction set, as products are added up
/// with what fused multiplication it has.
///
/// ```
/// use gateloop_scan::ScanShape;
/// use gateloop_scan::gate_loop::{Rows, RowsMut, WideHeads, WideStates};
///
/// // One sequence of two tokens, one head of width 2, decays of 1/2.
/// let shape = ScanShape::new(1, 2, 2)?;
/// let (q, k, v) = ([1.0_f32, 0.0, 1.0, 0.0], [1.0, 2.0, 1.0, 0.0], [3.0, 4.0, 5.0, 6.0]);
/// let (log_magnitude, phase) = ([0.5_f32.ln(); 2], [0.0; 2]);
/// let of_heads = ScanShape::new(1, 2, 1)?;
///
/// let operator = WideHeads::new(
///     Rows::contiguous("q", &q, shape)?,
///     Rows::contiguous("k", &k, shape)?,
///     Rows::contiguous("v", &v, shape)?,
///     Rows::contiguous("log_magnitude", &log_magnitude, of_heads)?,
///     Rows::contiguous("phase", &phase, of_heads)?,
/// )?;
/// let mut y = [0.0; 4];
/// operator.forward_into(RowsMut::contiguous("y", &mut y, shape)?, WideStates::default())?;
/// // The first rows of the states: (3, 4), then (1.5, 2) + (5, 6).
/// assert_eq!(y, [3.0, 4.0, 6.5, 8.0]);
/// # Ok::<(), gateloop_scan::ScanError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct WideHeads<'a, R> {
    dims: Dims,
    q: Rows<'a, R>,
    k: Rows<'a, R>,
    v: Rows<'a, R>,
    log_magnitude: Rows<'a, R>,
    phase: Rows<'a, R>,
    h0: Option<&'a [Complex<R>]>,
    threads: &'a dyn ParallelFor,
    pub(super) level: Level,
}

/// What the forward pass may write besides `y`; each part is overwritten.
#[derive(Debug)]
pub struct WideStates<'s, R> {
    /// The state after the last token, `[B, H, d, d]`; the second dimension from the end is that of k.
    pub h_last: Option<&'s mut [Complex<R>]>,
    /// What the adjoint wants to know again: [`WideHeads::entries_len`] numbers.
    pub entries: Option<&'s mut [R]>,
}

impl<R> Default for WideStates<'_, R> {
    fn default() -> Self {
        Self { h_last: None, entries: None }
    }
}

/// What the adjoint reads besides the operands.
#[derive(Debug, Clone, Copy)]
pub struct WideHeadsUpstream<'u, R> {
    /// What the forward pass wrote there.
    pub entries: &'u [R],
    /// Gradient of `y`, `[B, T, H d]`.
    pub dy: Rows<'u, R>,
    /// Gradient of `h_last`, `[B, H, d, d]`.
    pub dh_last: Option<&'u [Complex<R>]>,
}

/// Where the gradients go; each is overwritten.
#[derive(Debug)]
pub struct WideHeadsGrads<'g, R> {
    /// Gradient of `q`, `[B, T, H d]`.
    pub dq: RowsMut<'g, R>,
    /// Gradient of `k`, `[B, T, H d]`.
    pub dk: RowsMut<'g, R>,
    /// Gradient of `v`, `[B, T, H d]`.
    pub dv: RowsMut<'g, R>,
    /// Gradient of `log_magnitude`, `[B, T, H]`.
    pub dlog_magnitude: RowsMut<'g, R>,
    /// Gradient of `phase`, `[B, T, H]`.
    pub dphase: RowsMut<'g, R>,
    /// Gradient of the initial state, `[B, H, d, d]`; of the implied zero if there was none.
    pub dh0: Option<&'g mut [Complex<R>]>,
}

impl<'a, R: Real> WideHeads<'a, R>
where
    Complex<R>: ScanElement,
{
    /// # Shapes
    /// - `q`, `k`, `v`: `[B, T, H d]`, the columns of a head side by side
    /// - `log_magnitude`, `phase`: `[B, T, H]`, `log |a|`, minus infinity for a decay of zero, and `arg a` in radians
    ///
    /// # Errors
    /// [`ScanError::Rows`] names the operand that does not fit `q`.
    pub fn new(
        q: Rows<'a, R>,
        k: Rows<'a, R>,
        v: Rows<'a, R>,
        log_magnitude: Rows<'a, R>,
        phase: Rows<'a, R>,
    ) -> Result<Self, ScanError> {
        let ScanShape { batch, seqlen, channels } = q.shape()?;
        k.check("k", q.shape()?, 1)?;
        v.check("v", q.shape()?, 1)?;
        let heads = log_magnitude.shape()?.channels;
        if !channels.is_multiple_of(heads) {
            let (layout, expected) = ("[B, T, H x head_dim]", channels.next_multiple_of(heads));
            return Err(ScanError::Length { operand: "q", layout, expected, actual: channels });
        }
        let of_heads = ScanShape::new(batch, seqlen, heads)?;
        log_magnitude.check("log_magnitude", of_heads, 1)?;
        phase.check("phase", of_heads, 1)?;
        let head_dim = channels / heads;
        // States need no more memory than operands if chunks are as long as heads are wide.
        let chunk_len = head_dim.max(MIN_CHUNK_LEN).min(seqlen);
        let dims = Dims { batch, seqlen, heads, head_dim, chunk_len };
        let this = Self {
            dims,
            q,
            k,
            v,
            log_magnitude,
            phase,
            h0: None,
            threads: &Rayon,
            level: Level::best(),
        };
        this.check_size()
    }

    /// Starts from `h0` instead of zero.
    ///
    /// # Shapes
    /// `h0`: `[B, H, d, d]`.
    pub fn with_initial_state(self, h0: &'a [Complex<R>]) -> Result<Self, ScanError> {
        check_len("h0", "[B, H, d, d]", h0.len(), self.state_len())?;
        Ok(Self { h0: Some(h0), ..self })
    }

    /// Cuts sequences into chunks of `chunk_len` tokens, the last one of what is left; a chunk as long as the sequence is
    /// the quadratic form. The default is `max(d, 64)`: at least that many are needed for speed, and memory grows with
    /// T d^2 / `chunk_len`.
    ///
    /// # Errors
    /// [`ScanError::EmptyDimension`] if it is 0.
    pub fn with_chunk_len(self, chunk_len: usize) -> Result<Self, ScanError> {
        let Dims { batch, seqlen, heads, head_dim, .. } = self.dims;
        if chunk_len == 0 {
            let (dimension, channels) = ("chunk_len", heads * head_dim);
            return Err(ScanError::EmptyDimension { dimension, batch, seqlen, channels });
        }
        let dims = Dims { chunk_len: chunk_len.min(seqlen), ..self.dims };
        Self { dims, ..self }.check_size()
    }

    /// Runs on these threads.
    pub fn on(self, threads: &'a dyn ParallelFor) -> Self {
        Self { threads, ..self }
    }

    /// Tokens of a chunk.
    pub const fn chunk_len(&self) -> usize {
        self.dims.chunk_len
    }

    /// Numbers of a state: `B x H x d x d`.
    pub const fn state_len(&self) -> usize {
        let Dims { batch, heads, head_dim, .. } = self.dims;
        batch * heads * head_dim * head_dim
    }

    /// How many numbers the adjoint needs to be kept: two for each of a state, for each chunk.
    pub const fn entries_len(&self) -> usize {
        2 * self.state_len() * self.dims.chunks()
    }

    /// Refuses states and pairs of a chunk that cannot be counted.
    fn check_size(self) -> Result<Self, ScanError> {
        let Dims { batch, seqlen, heads, head_dim, chunk_len } = self.dims;
        let fits = |factors: &[usize]| {
            let numbers = factors.iter().try_fold(1_usize, |n, &factor| n.checked_mul(factor));
            numbers
                .and_then(|n| n.checked_mul(size_of::<f64>()))
                .is_some_and(|bytes| isize::try_from(bytes).is_ok())
        };
        let states = fits(&[2, batch, heads, head_dim, head_dim, self.dims.chunks()]);
        if states && fits(&[chunk_len, chunk_len]) && fits(&[2, chunk_len, head_dim]) {
            return Ok(self);
        }
        Err(ScanError::TooLarge { batch, seqlen, channels: heads * head_dim })
    }

    fn shape(&self) -> Result<ScanShape, ScanError> {
        ScanShape::new(self.dims.batch, self.dims.seqlen, self.dims.heads * self.dims.head_dim)
    }

    fn decays(&self) -> Decays {
        Decays::new(&self.dims, self.log_magnitude, self.phase, self.threads)
    }

    /// Every output, and the states that are asked for.
    ///
    /// # Shapes
    /// `y`: `[B, T, H d]`.
    pub fn forward_into(
        &self,
        y: RowsMut<'_, R>,
        states: WideStates<'_, R>,
    ) -> Result<(), ScanError> {
        <R as Heads>::forward(self, y, states)
    }

    pub(super) fn run(
        &self,
        y: RowsMut<'_, R>,
        states: WideStates<'_, R>,
    ) -> Result<(), ScanError> {
        y.check("y", self.shape()?, 1)?;
        if let Some(h_last) = &states.h_last {
            check_len("h_last", "[B, H, d, d]", h_last.len(), self.state_len())?;
        }
        if let Some(entries) = &states.entries {
            let layout = "[B, H, chunks, 2, d, d]";
            check_len("entries", layout, entries.len(), self.entries_len())?;
        }
        let mut own = Vec::new();
        let entries = if let Some(entries) = states.entries {
            entries
        } else {
            own.resize(self.entries_len(), R::ZERO);
            &mut own
        };
        let decays = self.decays();
        self.states(&decays, entries, self.h0, states.h_last);
        let outputs = Outputs {
            dims: &self.dims,
            decays: &decays,
            q: self.q,
            k: self.k,
            v: self.v,
            entries,
            has_h0: self.h0.is_some(),
            y: &y.shared(false),
        };
        for_each_chunk(&outputs, &self.dims, self.level, self.threads);
        Ok(())
    }

    /// The states that enter the chunks, and the last one.
    fn states(
        &self,
        decays: &Decays,
        entries: &mut [R],
        h0: Option<&[Complex<R>]>,
        h_last: Option<&mut [Complex<R>]>,
    ) {
        let (dims, way) = (&self.dims, Way::Forth);
        let states = &Output::new(entries, false);
        let additions = Additions { dims, decays, way, left: self.k, right: self.v, states };
        for_each_chunk(&additions, dims, self.level, self.threads);
        let last = h_last.map(|h| Output::new(h, false));
        Carry { dims, decays, way, states, first: h0, last }.run(self.level, self.threads);
    }

    /// The affine map that the operator applies to the state that enters it: `product` of all decays, and the last state
    /// from zero. It reads neither `q` nor an initial state.
    ///
    /// # Shapes
    /// `product`: `[B, H]`; `last`: `[B, H, d, d]`.
    pub fn map_into(
        &self,
        product: &mut [Complex<R>],
        last: &mut [Complex<R>],
    ) -> Result<(), ScanError> {
        <R as Heads>::map(self, product, last)
    }

    pub(super) fn run_map(
        &self,
        product: &mut [Complex<R>],
        last: &mut [Complex<R>],
    ) -> Result<(), ScanError> {
        let streams = self.dims.batch * self.dims.heads;
        check_len("product", "[B, H]", product.len(), streams)?;
        check_len("last", "[B, H, d, d]", last.len(), self.state_len())?;
        let decays = self.decays();
        self.states(&decays, &mut vec![R::ZERO; self.entries_len()], None, Some(last));
        let chunks = self.dims.chunks();
        for (stream, product) in product.iter_mut().enumerate() {
            let sites = (stream * chunks..(stream + 1) * chunks).map(|i| Site::new(&self.dims, i));
            let total: Wide = sites.map(|site| decays.total(&self.dims, &site)).product();
            *product = Complex::narrow(total);
        }
        Ok(())
    }

    /// The gradients of operands and initial state.
    ///
    /// Where a decay is zero its logarithm has no gradient, and gets that of a decay that tends to zero: none.
    pub fn adjoint_into(
        &self,
        upstream: WideHeadsUpstream<'_, R>,
        grads: WideHeadsGrads<'_, R>,
    ) -> Result<(), ScanError> {
        <R as Heads>::adjoint(self, upstream, grads)
    }

    pub(super) fn run_back(
        &self,
        upstream: WideHeadsUpstream<'_, R>,
        grads: WideHeadsGrads<'_, R>,
    ) -> Result<(), ScanError> {
        let (shape, dims) = (self.shape()?, &self.dims);
        let of_heads = ScanShape::new(dims.batch, dims.seqlen, dims.heads)?;
        let WideHeadsUpstream { entries, dy, dh_last } = upstream;
        let WideHeadsGrads { dq, dk, dv, dlog_magnitude, dphase, dh0 } = grads;
        check_len("entries", "[B, H, chunks, 2, d, d]", entries.len(), self.entries_len())?;
        dy.check("dy", shape, 1)?;
        for (operand, rows) in [("dq", &dq), ("dk", &dk), ("dv", &dv)] {
            rows.check(operand, shape, 1)?;
        }
        dlog_magnitude.check("dlog_magnitude", of_heads, 1)?;
        dphase.check("dphase", of_heads, 1)?;
        for (operand, len) in
            [("dh_last", dh_last.map(<[_]>::len)), ("dh0", dh0.as_ref().map(|d| d.len()))]
        {
            if let Some(len) = len {
                check_len(operand, "[B, H, d, d]", len, self.state_len())?;
            }
        }

        let decays = &self.decays();
        let mut leaving = vec![R::ZERO; self.entries_len()];
        self.state_gradients(decays, &mut leaving, dy, dh_last, dh0);
        let gradients = Gradients {
            dims,
            decays,
            q: self.q,
            k: self.k,
            v: self.v,
            dy,
            entries,
            leaving: &leaving,
            has_h0: self.h0.is_some(),
            has_dh_last: dh_last.is_some(),
            dq: &dq.shared(false),
            dk: &dk.shared(false),
            dv: &dv.shared(false),
            dlog_magnitude: &dlog_magnitude.shared(false),
            dphase: &dphase.shared(false),
        };
        for_each_chunk(&gradients, dims, self.level, self.threads);
        Ok(())
    }

    /// The gradients of the states that leave the chunks, and of that which enters the first.
    fn state_gradients(
        &self,
        decays: &Decays,
        leaving: &mut [R],
        dy: Rows<'_, R>,
        dh_last: Option<&[Complex<R>]>,
        dh0: Option<&mut [Complex<R>]>,
    ) {
        let (dims, way) = (&self.dims, Way::Back);
        let states = &Output::new(leaving, false);
        let additions = Additions { dims, decays, way, left: self.q, right: dy, states };
        for_each_chunk(&additions, dims, self.level, self.threads);
        let last = dh0.map(|dh0| Output::new(dh0, false));
        Carry { dims, decays, way, states, first: dh_last, last }.run(self.level, self.threads);
    }

    /// The gradient of the initial state alone, if there was one: it reads `q`, the decays and `dy`, and needs no states.
    ///
    /// # Shapes
    /// `dy`: `[B, T, H d]`; `dh_last`, `dh0`: `[B, H, d, d]`.
    pub fn entry_gradient_into(
        &self,
        dy: Rows<'_, R>,
        dh_last: Option<&[Complex<R>]>,
        dh0: &mut [Complex<R>],
    ) -> Result<(), ScanError> {
        <R as Heads>::entry_gradient(self, dy, dh_last, dh0)
    }

    pub(super) fn run_entry(
        &self,
        dy: Rows<'_, R>,
        dh_last: Option<&[Complex<R>]>,
        dh0: &mut [Complex<R>],
    ) -> Result<(), ScanError> {
        dy.check("dy", self.shape()?, 1)?;
        check_len("dh0", "[B, H, d, d]", dh0.len(), self.state_len())?;
        if let Some(dh_last) = dh_last {
            check_len("dh_last", "[B, H, d, d]", dh_last.len(), self.state_len())?;
        }
        let mut leaving = vec![R::ZERO; self.entries_len()];
        self.state_gradients(&self.decays(), &mut leaving, dy, dh_last, Some(dh0));
        Ok(())
    }
}
