//! The oracle of heads of any width: the recurrence token by token, in double precision.

// Each test binary uses its own part of this module.
#![allow(dead_code, unreachable_pub)]

use gateloop_scan::Complex;

pub type C = Complex<f64>;

/// The operands: `q`, `k`, `v`, `dy` [B, T, H d], `log_magnitude` and `phase` [B, T, H], states [B, H, d, d].
#[derive(Debug, Clone, Default)]
pub struct Operands {
    /// B, T, H, d
    pub dims: [usize; 4],
    pub q: Vec<f64>,
    pub k: Vec<f64>,
    pub v: Vec<f64>,
    pub log_magnitude: Vec<f64>,
    pub phase: Vec<f64>,
    pub h0: Vec<C>,
    pub dy: Vec<f64>,
    pub dh_last: Vec<C>,
}

/// What comes of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Results {
    pub y: Vec<f64>,
    pub last: Vec<C>,
    pub dq: Vec<f64>,
    pub dk: Vec<f64>,
    pub dv: Vec<f64>,
    pub dlog_magnitude: Vec<f64>,
    pub dphase: Vec<f64>,
    pub dh0: Vec<C>,
}

impl Operands {
    /// All of one sign and one direction, so that nothing cancels: what results are to be measured by.
    pub fn magnitudes(&self) -> Self {
        let real = |x: &[f64]| x.iter().map(|x| x.abs()).collect();
        let complex = |x: &[C]| x.iter().map(|x| C::from(x.norm())).collect();
        Self {
            dims: self.dims,
            q: real(&self.q),
            k: real(&self.k),
            v: real(&self.v),
            log_magnitude: self.log_magnitude.clone(),
            phase: vec![0.0; self.phase.len()],
            h0: complex(&self.h0),
            dy: real(&self.dy),
            dh_last: complex(&self.dh_last),
        }
    }

    pub fn run(&self) -> Results {
        let [batch, seqlen, heads, d] = self.dims;
        let width = heads * d;
        let wide = || vec![0.0; batch * seqlen * width];
        let of_heads = || vec![0.0; batch * seqlen * heads];
        let mut results = Results {
            y: wide(),
            last: self.h0.clone(),
            dq: wide(),
            dk: wide(),
            dv: wide(),
            dlog_magnitude: of_heads(),
            dphase: of_heads(),
            dh0: self.dh_last.clone(),
        };
        for b in 0..batch {
            for h in 0..heads {
                let state = (b * heads + h) * d * d;
                let mut states = vec![self.h0[state..state + d * d].to_vec()];
                let gate = |t: usize| (b * seqlen + t) * heads + h;
                let row = |t: usize| (b * seqlen + t) * width + h * d;
                let a = |t: usize| {
                    C::from_polar(self.log_magnitude[gate(t)].exp(), self.phase[gate(t)])
                };
                for t in 0..seqlen {
                    let before = &states[t];
                    let after: Vec<C> = (0..d * d)
                        .map(|e| {
                            let kv = self.k[row(t) + e / d] * self.v[row(t) + e % d];
                            a(t) * before[e] + kv
                        })
                        .collect();
                    for (e, after) in after.iter().enumerate() {
                        results.y[row(t) + e % d] += self.q[row(t) + e / d] * after.re;
                    }
                    states.push(after);
                }
                results.last[state..state + d * d].copy_from_slice(&states[seqlen]);
                let mut g = self.dh_last[state..state + d * d].to_vec();
                for t in (0..seqlen).rev() {
                    let mut da = C::default();
                    for e in 0..d * d {
                        let (i, j) = (row(t) + e / d, row(t) + e % d);
                        g[e] += self.q[i] * self.dy[j];
                        results.dq[i] += states[t + 1][e].re * self.dy[j];
                        results.dk[i] += g[e].re * self.v[j];
                        results.dv[j] += g[e].re * self.k[i];
                        da += g[e] * states[t][e].conj();
                        g[e] *= a(t).conj();
                    }
                    let along = da * a(t).conj();
                    results.dlog_magnitude[gate(t)] = along.re;
                    results.dphase[gate(t)] = along.im;
                }
                results.dh0[state..state + d * d].copy_from_slice(&g);
            }
        }
        results
    }
}
