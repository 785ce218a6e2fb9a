//! A fused operator to be run: borrowed operands, checked once.

use crate::chunked::drive;
use crate::chunked::output::Output;
use crate::chunked::plan::Plan;
use crate::chunked::request::{Bound, Request};
use crate::error::check_len;
use crate::parallel::Rayon;
use crate::{Complex, ParallelFor, ScanElement, ScanError, ScanShape};

use super::adjoint::Backward;
use super::forward::Forward;
use super::kind::Kind;
use super::planes::MAX_WIDTH;
use super::{BLOCK_LEN, CHECKPOINT_LEN, GateMode, MaxHeads, Real, Rows, RowsMut, Simple};

/// A fused operator over borrowed rows: [`GateLoop`] or [`SimpleGateLoop`].
///
/// Without an initial state the first token has nothing before it, and its decay is not read.
#[derive(Debug, Clone, Copy)]
pub struct Operator<'a, K: Kind> {
    pub(super) shape: ScanShape,
    pub(super) q: Rows<'a, K::Real>,
    pub(super) k: Rows<'a, K::Real>,
    pub(super) v: Option<Rows<'a, K::Real>>,
    pub(super) z: Rows<'a, K::Real>,
    pub(super) mode: GateMode,
    pub(super) fraction: K::Real,
    pub(super) h0: Option<&'a [K::State]>,
    pub(super) starts: Option<&'a [bool]>,
    pub(super) reversed: bool,
    pub(super) threads: &'a dyn ParallelFor,
}

/// `h = a h + k v`, `a = sigmoid(|z|) e^{i arg z}`, `y = q Re(h)`: GateLoop with one channel a head.
pub type GateLoop<'a, R> = Operator<'a, MaxHeads<R>>;

/// `h = sigmoid(z) h + kv`, `y = q h`.
pub type SimpleGateLoop<'a, R> = Operator<'a, Simple<R>>;

/// What the forward pass may write besides `y`; each part is overwritten.
#[derive(Debug)]
pub struct States<'s, S> {
    /// The state with which the pass ends, `[B, C]`.
    pub h_last: Option<&'s mut [S]>,
    /// What the adjoint wants to know again: [`Operator::checkpoints_len`] states, one of
    /// [`CHECKPOINT_LEN`] tokens.
    pub checkpoints: Option<&'s mut [S]>,
}

impl<S> Default for States<'_, S> {
    fn default() -> Self {
        Self { h_last: None, checkpoints: None }
    }
}

/// What the adjoint reads besides the operands.
#[derive(Debug, Clone, Copy)]
pub struct Upstream<'u, R, S> {
    /// What the forward pass wrote there.
    pub checkpoints: &'u [S],
    /// Gradient of `y`, `[B, T, C]`.
    pub dy: Rows<'u, R>,
    /// Gradient of `h_last`, `[B, C]`.
    pub dh_last: Option<&'u [S]>,
}

/// Where the gradients of a [`GateLoop`] go; each is overwritten.
#[derive(Debug)]
pub struct GateLoopGrads<'g, R> {
    /// Gradient of `q`, `[B, T, C]`.
    pub dq: RowsMut<'g, R>,
    /// Gradient of `k`, `[B, T, C]`.
    pub dk: RowsMut<'g, R>,
    /// Gradient of `v`, `[B, T, C]`.
    pub dv: RowsMut<'g, R>,
    /// Gradient of `z`, `[B, T, 2 C]`.
    pub dz: RowsMut<'g, R>,
    /// Gradient of the initial state, `[B, C]`; of the implied zero if there was none.
    pub dh0: Option<&'g mut [Complex<R>]>,
}

/// Where the gradients of a [`SimpleGateLoop`] go; each is overwritten.
#[derive(Debug)]
pub struct SimpleGateLoopGrads<'g, R> {
    /// Gradient of `q`, `[B, T, C]`.
    pub dq: RowsMut<'g, R>,
    /// Gradient of `kv`, `[B, T, C]`.
    pub dkv: RowsMut<'g, R>,
    /// Gradient of `z`, `[B, T, C]`.
    pub dz: RowsMut<'g, R>,
    /// Gradient of the initial state, `[B, C]`; of the implied zero if there was none.
    pub dh0: Option<&'g mut [R]>,
}

impl<'a, R: Real> GateLoop<'a, R>
where
    Complex<R>: ScanElement,
{
    /// # Shapes
    /// `q`, `k`, `v`: `[B, T, C]`; `z`: `[B, T, 2 C]`, real and imaginary parts of a channel side by
    /// side.
    ///
    /// # Errors
    /// [`ScanError::Rows`] names the operand that does not fit `q`.
    pub fn new(
        q: Rows<'a, R>,
        k: Rows<'a, R>,
        v: Rows<'a, R>,
        z: Rows<'a, R>,
    ) -> Result<Self, ScanError> {
        v.check("v", q.shape()?, 1)?;
        Self::of(q, k, Some(v), z)
    }

    /// How the decay is computed from `z`; anything but the default is an ablation.
    pub fn with_mode(self, mode: GateMode) -> Self {
        Self { mode, ..self }
    }

    /// The gradients of operands and initial state.
    pub fn adjoint_into(
        &self,
        upstream: Upstream<'_, R, Complex<R>>,
        grads: GateLoopGrads<'_, R>,
    ) -> Result<(), ScanError> {
        let GateLoopGrads { dq, dk, dv, dz, dh0 } = grads;
        dv.check("dv", self.shape, 1)?;
        self.gradients(upstream, Places { dq, dk: ("dk", dk), dv: Some(dv), dz }, dh0)
    }
}

impl<'a, R: Real> SimpleGateLoop<'a, R> {
    /// # Shapes
    /// `q`, `kv`, `z`: `[B, T, C]`.
    ///
    /// # Errors
    /// [`ScanError::Rows`] names the operand that does not fit `q`.
    pub fn new(q: Rows<'a, R>, kv: Rows<'a, R>, z: Rows<'a, R>) -> Result<Self, ScanError> {
        Self::of(q, kv, None, z)
    }

    /// The gradients of operands and initial state.
    pub fn adjoint_into(
        &self,
        upstream: Upstream<'_, R, R>,
        grads: SimpleGateLoopGrads<'_, R>,
    ) -> Result<(), ScanError> {
        let SimpleGateLoopGrads { dq, dkv, dz, dh0 } = grads;
        self.gradients(upstream, Places { dq, dk: ("dkv", dkv), dv: None, dz }, dh0)
    }
}

/// Where gradients go, for either operator; that of the input with its name.
struct Places<'g, R> {
    dq: RowsMut<'g, R>,
    dk: (&'static str, RowsMut<'g, R>),
    dv: Option<RowsMut<'g, R>>,
    dz: RowsMut<'g, R>,
}

impl<'a, K: Kind> Operator<'a, K> {
    fn of(
        q: Rows<'a, K::Real>,
        k: Rows<'a, K::Real>,
        v: Option<Rows<'a, K::Real>>,
        z: Rows<'a, K::Real>,
    ) -> Result<Self, ScanError> {
        let shape = q.shape()?;
        k.check(if v.is_some() { "k" } else { "kv" }, shape, 1)?;
        z.check("z", shape, K::GATE_PARTS)?;
        Ok(Self {
            shape,
            q,
            k,
            v,
            z,
            mode: GateMode::default(),
            fraction: K::Real::ONE,
            h0: None,
            starts: None,
            reversed: false,
            threads: &Rayon,
        })
    }

    /// Starts from `h0` instead of zero: the state before the first token of the pass.
    ///
    /// # Shapes
    /// `h0`: `[B, C]`.
    pub fn with_initial_state(self, h0: &'a [K::State]) -> Result<Self, ScanError> {
        check_len("h0", "[B, C]", h0.len(), self.shape.state_len())?;
        Ok(Self { h0: Some(h0), ..self })
    }

    /// Packs several segments into a sequence, as [`Scan::with_segment_starts`](crate::Scan::with_segment_starts).
    ///
    /// # Shapes
    /// `starts`: `[B, T]`.
    pub fn with_segment_starts(self, starts: &'a [bool]) -> Result<Self, ScanError> {
        check_len("starts", "[B, T]", starts.len(), self.shape.token_count())?;
        Ok(Self { starts: Some(starts), ..self })
    }

    /// Turns the direction around, as [`Scan::reversed`](crate::Scan::reversed).
    pub fn reversed(self) -> Self {
        Self { reversed: !self.reversed, ..self }
    }

    /// `z` receives this fraction of its gradient: a lower learning rate for what computes it, in
    /// effect. Values are not changed.
    pub fn with_gate_gradient(self, fraction: K::Real) -> Self {
        Self { fraction, ..self }
    }

    /// Runs on these threads.
    pub fn on(self, threads: &'a dyn ParallelFor) -> Self {
        Self { threads, ..self }
    }

    /// The dimensions, `[B, T, C]`.
    pub const fn shape(&self) -> ScanShape {
        self.shape
    }

    pub(super) const fn checkpoint_count(&self) -> usize {
        self.shape.seqlen.div_ceil(CHECKPOINT_LEN)
    }

    /// How many states the adjoint needs to be kept: `B x ceil(T / CHECKPOINT_LEN) x C`.
    pub const fn checkpoints_len(&self) -> usize {
        self.checkpoint_count() * self.shape.state_len()
    }

    /// The token that the pass visits at `position`.
    #[inline(always)]
    pub(super) const fn token(&self, position: usize) -> usize {
        if self.reversed { self.shape.seqlen - 1 - position } else { position }
    }

    /// Whether a segment boundary lies between token `t` and the one that the pass visits before.
    #[inline(always)]
    pub(super) fn is_cut(&self, batch: usize, t: usize) -> bool {
        self.starts.is_some_and(|starts| {
            let later = if self.reversed { t + 1 } else { t };
            later < self.shape.seqlen && starts[batch * self.shape.seqlen + later]
        })
    }

    pub(super) fn plan(&self, streamed: bool) -> Plan {
        Plan::new(&Request {
            shape: self.shape,
            element_bytes: size_of::<K::Real>(),
            tile_bytes: MAX_WIDTH * size_of::<f32>(),
            threads: self.threads.threads(),
            misalignment: 0,
            streamed,
            block_len: BLOCK_LEN,
            bound: Bound::Compute,
        })
    }

    /// Every output, and the states that are asked for.
    ///
    /// # Shapes
    /// `y`: `[B, T, C]`.
    pub fn forward_into(
        &self,
        y: RowsMut<'_, K::Real>,
        states: States<'_, K::State>,
    ) -> Result<(), ScanError> {
        y.check("y", self.shape, 1)?;
        if let Some(h_last) = &states.h_last {
            check_len("h_last", "[B, C]", h_last.len(), self.shape.state_len())?;
        }
        if let Some(checkpoints) = &states.checkpoints {
            let expected = self.checkpoints_len();
            check_len("checkpoints", "[B, checkpoints, C]", checkpoints.len(), expected)?;
        }
        let streamed = crate::chunked::request::is_streamed::<K::Real>(self.shape);
        let pass = Forward {
            operator: self,
            y: y.shared(streamed),
            h_last: states.h_last.map(|h| Output::new(h, false)),
            checkpoints: states.checkpoints.map(|h| Output::new(h, false)),
        };
        drive::run(&pass, &self.plan(streamed), self.threads);
        Ok(())
    }

    fn gradients(
        &self,
        upstream: Upstream<'_, K::Real, K::State>,
        places: Places<'_, K::Real>,
        dh0: Option<&mut [K::State]>,
    ) -> Result<(), ScanError> {
        let Places { dq, dk: (dk_name, dk), dv, dz } = places;
        upstream.dy.check("dy", self.shape, 1)?;
        dq.check("dq", self.shape, 1)?;
        dk.check(dk_name, self.shape, 1)?;
        dz.check("dz", self.shape, K::GATE_PARTS)?;
        let (count, states) = (self.checkpoints_len(), self.shape.state_len());
        check_len("checkpoints", "[B, checkpoints, C]", upstream.checkpoints.len(), count)?;
        if let Some(dh_last) = upstream.dh_last {
            check_len("dh_last", "[B, C]", dh_last.len(), states)?;
        }
        if let Some(dh0) = &dh0 {
            check_len("dh0", "[B, C]", dh0.len(), states)?;
        }
        let streamed = crate::chunked::request::is_streamed::<K::Real>(self.shape);
        let pass = Backward {
            operator: self,
            dy: upstream.dy,
            dh_last: upstream.dh_last,
            checkpoints: upstream.checkpoints,
            dq: dq.shared(streamed),
            dk: dk.shared(streamed),
            dv: dv.map(|dv| dv.shared(streamed)),
            dz: dz.shared(streamed),
            dh0: dh0.map(|dh0| Output::new(dh0, false)),
        };
        drive::run(&pass, &self.plan(streamed), self.threads);
        Ok(())
    }
}
