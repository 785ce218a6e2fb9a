//! What the benches measure: shapes, reproducible data, and the check that comes before the clock.

use gateloop_scan::{Complex, Scan, ScanElement, ScanError, ScanShape, Tolerance};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A shape with a name for reports.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Sequences.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seqlen: usize,
    /// Channels.
    pub channels: usize,
}

impl Workload {
    /// The shapes of the scan benches: a long sequence, a training batch, one decoding step, and a
    /// sequence so long and narrow that channels cannot feed the threads.
    pub const SCAN: [Self; 5] = [
        Self { batch: 1, seqlen: 65_536, channels: 512 },
        Self { batch: 8, seqlen: 256, channels: 512 },
        Self { batch: 1, seqlen: 1024, channels: 64 },
        Self { batch: 1, seqlen: 1, channels: 512 },
        Self { batch: 1, seqlen: 1_048_576, channels: 8 },
    ];

    /// The shape as the scan takes it.
    pub fn shape(&self) -> Result<ScanShape, ScanError> {
        ScanShape::new(self.batch, self.seqlen, self.channels)
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.batch, self.seqlen, self.channels)
    }
}

/// An element that can be drawn from real numbers.
pub trait Sample: ScanElement {
    /// The element with these parts; a real element takes the first alone.
    fn of_parts(re: f32, im: f32) -> Self;
}

impl Sample for f32 {
    fn of_parts(re: f32, _im: f32) -> Self {
        re
    }
}

impl Sample for Complex<f32> {
    fn of_parts(re: f32, im: f32) -> Self {
        Self::new(re, im)
    }
}

/// Decays of modulus below 1 and inputs around 0, the same in every run.
pub fn operands<E: Sample>(shape: ScanShape) -> (Vec<E>, Vec<E>) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut draw = |re: std::ops::Range<f32>, im: std::ops::Range<f32>| -> Vec<E> {
        (0..shape.len())
            .map(|_| E::of_parts(rng.random_range(re.clone()), rng.random_range(im.clone())))
            .collect()
    };
    (draw(0.9..0.99, -0.1..0.1), draw(-1.0..1.0, -1.0..1.0))
}

/// Whether `actual` is the answer of the naive scan; a bench does not time a wrong answer.
pub fn is_right<E: ScanElement>(scan: &Scan<'_, E>, actual: &[E]) -> Result<(), String> {
    let naive = scan.run(gateloop_scan::Algorithm::Naive).map_err(|e| e.to_string())?;
    let scale = scan.magnitude().map_err(|e| e.to_string())?;
    // Two computations that round alike.
    let tolerance = Tolerance::of::<E>(scan.shape().seqlen).times(2.0);
    tolerance.check(actual, &naive, &scale).map_err(|mismatch| mismatch.to_string())
}
