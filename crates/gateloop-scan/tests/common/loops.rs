//! The oracle of the fused operators: loops in double precision that one checks by eye.

// Each test binary uses its own part of this module.
#![allow(dead_code, unreachable_pub)]

use gateloop_scan::Complex;
use gateloop_scan::gate_loop::GateMode;

/// The fused operators as loops, in double precision.
pub struct Loops {
    pub shape: [usize; 3],
    pub complex: bool,
    pub mode: GateMode,
    pub reversed: bool,
    pub starts: Option<Vec<bool>>,
}

pub type C = Complex<f64>;

pub struct LoopGrads {
    pub y: Vec<f64>,
    pub last: Vec<C>,
    pub dq: Vec<f64>,
    pub dk: Vec<f64>,
    pub dv: Vec<f64>,
    pub dz: Vec<C>,
    pub dh0: Vec<C>,
}

impl Loops {
    fn decay(&self, z: C) -> C {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match (self.complex, self.mode) {
            (false, _) => C::from(sigmoid(z.re)),
            (true, GateMode::Complex) => C::from_polar(sigmoid(z.norm()), z.arg()),
            (true, GateMode::Real) => {
                C::from(sigmoid(z.re.abs()) * if z.re < 0.0 { -1.0 } else { 1.0 })
            }
            (true, GateMode::Identity) => C::from(1.0),
        }
    }

    /// The gradient of z, through modulus and angle: a = s e^{ip}, s = sigmoid(r).
    fn decay_gradient(&self, z: C, da: C) -> C {
        let a = self.decay(z);
        match (self.complex, self.mode) {
            (false, _) => C::from(da.re * a.re * (1.0 - a.re)),
            (true, GateMode::Identity) => C::from(0.0),
            (true, GateMode::Real) => C::from(da.re * a.re.abs() * (1.0 - a.re.abs())),
            (true, GateMode::Complex) => {
                let (r, p) = z.to_polar();
                let s = a.norm();
                let ds = da.re * p.cos() + da.im * p.sin();
                let dp = s * (da.im * p.cos() - da.re * p.sin());
                let dr = ds * s * (1.0 - s);
                C::new(dr * p.cos() - dp * p.sin() / r, dr * p.sin() + dp * p.cos() / r)
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub fn run(
        &self,
        q: &[f64],
        k: &[f64],
        v: &[f64],
        z: &[C],
        h0: Option<&[C]>,
        dy: &[f64],
        dh_last: &[C],
    ) -> LoopGrads {
        let [batch, seqlen, channels] = self.shape;
        let len = q.len();
        let mut out = LoopGrads {
            y: vec![0.0; len],
            last: vec![C::default(); batch * channels],
            dq: vec![0.0; len],
            dk: vec![0.0; len],
            dv: vec![0.0; len],
            dz: vec![C::default(); len],
            dh0: vec![C::default(); batch * channels],
        };
        for b in 0..batch {
            for c in 0..channels {
                let state = b * channels + c;
                let token = |s: usize| if self.reversed { seqlen - 1 - s } else { s };
                let at = |s: usize| (b * seqlen + token(s)) * channels + c;
                let cut = |s: usize| {
                    let later = if self.reversed { token(s) + 1 } else { token(s) };
                    later < seqlen
                        && self.starts.as_ref().is_some_and(|starts| starts[b * seqlen + later])
                };
                let mut before = vec![C::default(); seqlen];
                let mut h = h0.map_or(C::default(), |h0| h0[state]);
                for (s, before) in before.iter_mut().enumerate() {
                    let o = at(s);
                    *before = if cut(s) { C::default() } else { h };
                    h = self.decay(z[o]) * *before + k[o] * v[o];
                    out.y[o] = q[o] * h.re;
                }
                out.last[state] = h;
                let mut f = dh_last[state];
                for s in (0..seqlen).rev() {
                    let o = at(s);
                    let h = self.decay(z[o]) * before[s] + k[o] * v[o];
                    let g = f + q[o] * dy[o];
                    out.dq[o] = dy[o] * h.re;
                    (out.dk[o], out.dv[o]) = (g.re * v[o], g.re * k[o]);
                    out.dz[o] = self.decay_gradient(z[o], g * before[s].conj());
                    f = if cut(s) { C::default() } else { self.decay(z[o]).conj() * g };
                }
                out.dh0[state] = f;
            }
        }
        out
    }
}
