//! A scan to be run: borrowed inputs, checked once.

use crate::error::check_len;
use crate::parallel::{ParallelFor, Rayon};
use crate::{Algorithm, ScanElement, ScanError, ScanShape, heinsen, naive, tree};

/// The recurrence `h[b,t,c] = a[b,t,c] h[b,t-1,c] + b[b,t,c]` over borrowed `[B, T, C]` arrays.
///
/// Without an initial state the first token has nothing before it: `h[b,0,c] = b[b,0,c]`, and its
/// decay is not read.
///
/// ```
/// use gateloop_scan::{Algorithm, Scan, ScanShape};
///
/// let shape = ScanShape::new(1, 4, 1)?;
/// let a = [0.5_f32; 4];
/// let b = [1.0, 0.0, 0.0, 2.0];
///
/// let h = Scan::new(shape, &a, &b)?.run(Algorithm::Auto)?;
/// assert_eq!(h, [1.0, 0.5, 0.25, 2.125]);
///
/// let h = Scan::new(shape, &a, &b)?.with_initial_state(&[8.0])?.run(Algorithm::Auto)?;
/// assert_eq!(h, [5.0, 2.5, 1.25, 2.625]);
///
/// // Two documents packed into one row: nothing crosses from token 1 to token 2.
/// let starts = [true, false, true, false];
/// let h = Scan::new(shape, &a, &b)?.with_segment_starts(&starts)?.run(Algorithm::Auto)?;
/// assert_eq!(h, [1.0, 0.5, 0.0, 2.0]);
/// # Ok::<(), gateloop_scan::ScanError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Scan<'a, E> {
    shape: ScanShape,
    a: &'a [E],
    b: &'a [E],
    h0: Option<&'a [E]>,
    starts: Option<&'a [bool]>,
    reversed: bool,
    threads: &'a dyn ParallelFor,
}

impl<'a, E: ScanElement> Scan<'a, E> {
    /// A scan from the first token to the last, from a state of zero.
    ///
    /// # Shapes
    /// `a` (decays) and `b` (inputs): `[B, T, C]`.
    ///
    /// # Errors
    /// [`ScanError::Length`] names the operand that does not fit; a shape whose public fields
    /// were set to something that [`ScanShape::new`] refuses is refused here too.
    #[inline]
    pub fn new(shape: ScanShape, a: &'a [E], b: &'a [E]) -> Result<Self, ScanError> {
        let shape = ScanShape::new(shape.batch, shape.seqlen, shape.channels)?;
        check_len("a", "[B, T, C]", a.len(), shape.len())?;
        check_len("b", "[B, T, C]", b.len(), shape.len())?;
        Ok(Self { shape, a, b, h0: None, starts: None, reversed: false, threads: &Rayon })
    }

    /// Starts from `h0` instead of zero: the state before the first token, or after the last one
    /// of a reversed scan.
    ///
    /// # Shapes
    /// `h0`: `[B, C]`.
    pub fn with_initial_state(self, h0: &'a [E]) -> Result<Self, ScanError> {
        check_len("h0", "[B, C]", h0.len(), self.shape.state_len())?;
        Ok(Self { h0: Some(h0), ..self })
    }

    /// Packs several segments (documents) into a sequence: `starts[b,t]` says that token `t`
    /// begins a new one, so that nothing crosses between `t - 1` and `t`, in either direction.
    ///
    /// The state that enters a segment is zero. It is selected, not multiplied by zero: a NaN in
    /// one segment stays there. A forward scan with a start at token 0 discards `h0`; a reversed
    /// scan takes `h0` in after the last token, whatever begins there.
    ///
    /// # Shapes
    /// `starts`: `[B, T]`.
    pub fn with_segment_starts(self, starts: &'a [bool]) -> Result<Self, ScanError> {
        check_len("starts", "[B, T]", starts.len(), self.shape.token_count())?;
        Ok(Self { starts: Some(starts), ..self })
    }

    /// Turns the direction around: `h[t] = a[t] h[t+1] + b[t]`, from the last token to the first.
    pub fn reversed(self) -> Self {
        Self { reversed: !self.reversed, ..self }
    }

    /// Runs on these threads, where an algorithm uses several.
    pub fn on(self, threads: &'a dyn ParallelFor) -> Self {
        Self { threads, ..self }
    }

    /// Every state, `[B, T, C]`.
    pub fn run(&self, algorithm: Algorithm) -> Result<Vec<E>, ScanError> {
        let mut h = vec![E::ZERO; self.shape.len()];
        self.run_into(algorithm, &mut h)?;
        Ok(h)
    }

    /// Every state, written to `h`; what `h` held before is not read.
    ///
    /// # Shapes
    /// `h`: `[B, T, C]`.
    pub fn run_into(&self, algorithm: Algorithm, h: &mut [E]) -> Result<(), ScanError> {
        check_len("h", "[B, T, C]", h.len(), self.shape.len())?;
        match algorithm.resolve_for(&self.shape) {
            Algorithm::Naive => naive::scan(self, h),
            Algorithm::Tree => tree::scan(self, h),
            Algorithm::Heinsen => heinsen::scan(self, h),
            // The inputs are the states; to choose how they are copied would take as long as the copy.
            _ if self.shape.seqlen == 1 && self.h0.is_none() => h.copy_from_slice(self.b),
            Algorithm::Auto | Algorithm::Chunked => E::scan(self, h),
        }
        Ok(())
    }

    /// The state with which the pass ends, `[B, C]`: that of the last token, or of the first
    /// token of a reversed scan. It is the `h0` of the next piece of the sequence.
    ///
    /// # Shapes
    /// `h`: `[B, T, C]`, the states of this scan.
    pub fn last_state(&self, h: &[E]) -> Result<Vec<E>, ScanError> {
        let mut last = vec![E::ZERO; self.shape.state_len()];
        self.last_state_into(h, &mut last)?;
        Ok(last)
    }

    /// [`Scan::last_state`] into a slice of the caller.
    ///
    /// # Shapes
    /// `h`: `[B, T, C]`; `last`: `[B, C]`.
    pub fn last_state_into(&self, h: &[E], last: &mut [E]) -> Result<(), ScanError> {
        check_len("h", "[B, T, C]", h.len(), self.shape.len())?;
        check_len("last", "[B, C]", last.len(), self.shape.state_len())?;
        let t = self.token(self.shape.seqlen - 1);
        for (batch, last) in last.chunks_exact_mut(self.shape.channels).enumerate() {
            let at = self.shape.row(batch, t);
            last.copy_from_slice(&h[at..at + self.shape.channels]);
        }
        Ok(())
    }

    /// The dimensions.
    pub const fn shape(&self) -> ScanShape {
        self.shape
    }

    /// The decays, `[B, T, C]`.
    pub const fn a(&self) -> &'a [E] {
        self.a
    }

    /// The inputs, `[B, T, C]`.
    pub const fn b(&self) -> &'a [E] {
        self.b
    }

    /// The initial state, `[B, C]`, if there is one.
    pub const fn h0(&self) -> Option<&'a [E]> {
        self.h0
    }

    /// The segment starts, `[B, T]`, if there are any.
    pub const fn segment_starts(&self) -> Option<&'a [bool]> {
        self.starts
    }

    /// The threads to run on.
    pub(crate) const fn threads(&self) -> &'a dyn ParallelFor {
        self.threads
    }

    /// Whether the pass runs from the last token to the first.
    pub const fn is_reversed(&self) -> bool {
        self.reversed
    }

    /// The token that the pass visits at `position`.
    pub(crate) const fn token(&self, position: usize) -> usize {
        if self.reversed { self.shape.seqlen - 1 - position } else { position }
    }

    /// Whether segment starts were given.
    pub(crate) const fn has_segments(&self) -> bool {
        self.starts.is_some()
    }

    /// Whether a segment boundary lies between token `t` and the one that the pass visits before.
    pub(crate) fn is_cut(&self, batch: usize, t: usize) -> bool {
        self.starts.is_some_and(|starts| {
            let later = if self.reversed { t + 1 } else { t };
            later < self.shape.seqlen && starts[batch * self.shape.seqlen + later]
        })
    }
}
