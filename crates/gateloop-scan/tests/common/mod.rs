//! Random problems for the property tests.

// Each test binary uses its own part of this module.
#![allow(dead_code, unreachable_pub)]
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

use gateloop_scan::{
    Algorithm, Complex, OwnedGrads, Scan, ScanElement, ScanGrads, ScanShape, Tolerance,
};
use proptest::prelude::*;

/// What every oracle computes in.
pub type Wide = Complex<f64>;

/// A small generator (splitmix64), so that a case is a seed and shrinks well.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// A number of the given modulus: any sign of a real one, any phase of a complex one.
    pub fn turned<E: ScanElement>(&mut self, modulus: f64) -> E {
        let is_complex = E::narrow(Complex::I).modulus() > 0.0;
        let turn = self.unit();
        let phase = if is_complex { turn } else { (2.0 * turn).floor() / 2.0 };
        E::narrow(Complex::from_polar(modulus, phase * std::f64::consts::TAU))
    }

    /// Numbers of modulus below 1, of any direction.
    pub fn numbers<E: ScanElement>(&mut self, len: usize) -> Vec<E> {
        (0..len)
            .map(|_| {
                let modulus = self.unit();
                self.turned(modulus)
            })
            .collect()
    }
}

/// Which decays a problem has.
#[derive(Debug, Clone, Copy)]
pub enum Decays {
    Zero,
    One,
    NearOne,
    Gate,
    Negative,
    Turned,
    /// All of these in turn, a quarter of them exact zeros.
    Mixed,
}

impl Decays {
    pub const ALL: [Self; 7] = [
        Self::Zero,
        Self::One,
        Self::NearOne,
        Self::Gate,
        Self::Negative,
        Self::Turned,
        Self::Mixed,
    ];

    fn draw<E: ScanElement>(self, random: &mut Random) -> E {
        let real = |x: f64| E::narrow(Complex::new(x, 0.0));
        let x = random.unit();
        match self {
            Self::Zero => E::ZERO,
            Self::One => E::ONE,
            Self::NearOne => real(1.0 - x / 1024.0),
            Self::Gate => real(0.5 + x / 2.0),
            Self::Negative => real(-x),
            Self::Turned => random.turned(x),
            Self::Mixed if x < 0.25 => E::ZERO,
            Self::Mixed => Self::ALL[random.below(6)].draw(random),
        }
    }
}

/// Which inputs a problem has.
#[derive(Debug, Clone, Copy)]
pub enum Inputs {
    Zero,
    Dense,
    /// Half of them exact zeros, as after a `ReLU`.
    Sparse,
}

/// A problem that owns its data.
#[derive(Debug, Clone)]
pub struct Problem<E> {
    pub shape: ScanShape,
    pub a: Vec<E>,
    pub b: Vec<E>,
    pub h0: Option<Vec<E>>,
    pub starts: Option<Vec<bool>>,
    pub reversed: bool,
    pub random: Random,
}

/// What a problem is drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    pub shape: (usize, usize, usize),
    pub decays: Decays,
    pub inputs: Inputs,
    pub has_h0: bool,
    pub has_starts: bool,
    pub reversed: bool,
    pub seed: u64,
}

impl Spec {
    pub fn draw<E: ScanElement>(&self) -> Problem<E> {
        let (batch, seqlen, channels) = self.shape;
        let shape = ScanShape::new(batch, seqlen, channels).unwrap();
        let mut random = Random(self.seed);
        let a = (0..shape.len()).map(|_| self.decays.draw(&mut random)).collect();
        let mut b: Vec<E> = random.numbers(shape.len());
        match self.inputs {
            Inputs::Dense => {}
            Inputs::Zero => b.fill(E::ZERO),
            Inputs::Sparse => b.iter_mut().step_by(2).for_each(|b| *b = E::ZERO),
        }
        let h0 = self.has_h0.then(|| random.numbers(shape.state_len()));
        let starts = self
            .has_starts
            .then(|| (0..shape.token_count()).map(|_| random.below(7) == 0).collect());
        Problem { shape, a, b, h0, starts, reversed: self.reversed, random }
    }
}

/// Lengths around the powers of two and beyond, with few channels when long.
pub fn specs() -> impl Strategy<Value = Spec> {
    let lengths = prop::sample::select(vec![
        1, 2, 3, 5, 31, 32, 33, 63, 64, 65, 97, 127, 128, 129, 1000, 1025,
    ]);
    let channels = prop::sample::select(vec![1, 3, 8, 33, 257]);
    let decays = prop::sample::select(Decays::ALL.to_vec());
    let inputs = prop::sample::select(vec![Inputs::Dense, Inputs::Sparse, Inputs::Zero]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (1..4_usize, lengths, channels, decays, inputs, flags, any::<u64>()).prop_map(
        |(batch, seqlen, channels, decays, inputs, (has_h0, has_starts, reversed), seed)| Spec {
            shape: (batch, seqlen, if seqlen * channels > 9000 { 8 } else { channels }),
            decays,
            inputs,
            has_h0,
            has_starts,
            reversed,
            seed,
        },
    )
}

impl<E: ScanElement> Problem<E> {
    pub fn scan(&self) -> Scan<'_, E> {
        let mut scan = Scan::new(self.shape, &self.a, &self.b).unwrap();
        if let Some(h0) = &self.h0 {
            scan = scan.with_initial_state(h0).unwrap();
        }
        if let Some(starts) = &self.starts {
            scan = scan.with_segment_starts(starts).unwrap();
        }
        if self.reversed { scan.reversed() } else { scan }
    }

    /// The same problem in double precision.
    pub fn widened(&self) -> Problem<Wide> {
        Problem {
            shape: self.shape,
            a: widened(&self.a),
            b: widened(&self.b),
            h0: self.h0.as_deref().map(widened),
            starts: self.starts.clone(),
            reversed: self.reversed,
            random: self.random.clone(),
        }
    }

    /// Tokens `from..to` of every sequence, without initial state.
    pub fn piece(&self, from: usize, to: usize) -> Self {
        let cut = |xs: &[E]| rows(xs, self.shape.seqlen, self.shape.channels, from, to);
        let shape = ScanShape { seqlen: to - from, ..self.shape };
        Self {
            shape,
            a: cut(&self.a),
            b: cut(&self.b),
            h0: None,
            starts: self.starts.as_ref().map(|s| rows(s, self.shape.seqlen, 1, from, to)),
            reversed: self.reversed,
            random: self.random.clone(),
        }
    }

    /// The running magnitude, `[B, T, C]`.
    pub fn scale(&self) -> Vec<f64> {
        self.scan().magnitude().unwrap()
    }
}

/// Rows `from..to` of every sequence of a `[B, seqlen, channels]` array.
pub fn rows<T: Copy>(xs: &[T], seqlen: usize, channels: usize, from: usize, to: usize) -> Vec<T> {
    xs.chunks_exact(seqlen * channels)
        .flat_map(|sequence| sequence[from * channels..to * channels].iter().copied())
        .collect()
}

pub fn widened<E: ScanElement>(xs: &[E]) -> Vec<Wide> {
    xs.iter().map(|x| x.widen()).collect()
}

pub fn nan<E: ScanElement>() -> E {
    E::narrow(Complex::new(f64::NAN, f64::NAN))
}

/// Runs a scan into a buffer of NaN: what is not written is seen.
pub fn run<E: ScanElement>(scan: &Scan<'_, E>, algorithm: Algorithm) -> Vec<E> {
    let mut h = vec![nan(); scan.shape().len()];
    scan.run_into(algorithm, &mut h).unwrap();
    h
}

/// Runs an adjoint into buffers of NaN, `dh0` always among them.
pub fn adjoint<E: ScanElement>(
    scan: &Scan<'_, E>,
    algorithm: Algorithm,
    h: &[E],
    dh: &[E],
    dh_last: Option<&[E]>,
) -> OwnedGrads<E> {
    let (len, state_len) = (scan.shape().len(), scan.shape().state_len());
    let (mut da, mut db, mut dh0) = (vec![nan(); len], vec![nan(); len], vec![nan(); state_len]);
    let grads = ScanGrads { da: &mut da, db: &mut db, dh0: Some(&mut dh0) };
    scan.adjoint_into(algorithm, h, dh, dh_last, grads).unwrap();
    OwnedGrads { da, db, dh0: Some(dh0) }
}

/// For two computations that round alike, the tested one and an oracle or a second one.
pub fn tolerance<E: ScanElement>(seqlen: usize) -> Tolerance {
    Tolerance::of::<E>(seqlen).times(2.0)
}
