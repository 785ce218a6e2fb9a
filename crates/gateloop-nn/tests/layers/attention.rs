//! Attention against its formula, score by score, in every combination of its options.

use crate::common::{TestResult, assert_close, tensor, tolerance, values};
use crate::variants::{DIM, attentions, build};
use gateloop_nn::gate_loop::TransitionMode;
use gateloop_nn::{AttentionConfig, RelPos, SequenceLayer};
use num_complex::Complex64;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// More than one block of decays, and not a multiple of one.
const SEQLEN: usize = 37;

/// One sequence's parameters and input, for loops that one checks by eye.
struct Oracle<'a> {
    config: &'a AttentionConfig,
    vs: &'a VarStore,
    x: Tensor,
}

impl Oracle<'_> {
    /// W x (+ b), [T][out].
    fn project(&self, x: &Tensor, name: &str, bias: Option<&str>) -> Vec<Vec<f64>> {
        let variables = self.vs.variables();
        let y = x.linear(&variables[name], bias.map(|bias| &variables[bias]));
        let width = y.size()[1] as usize;
        values(&y).chunks(width).map(<[f64]>::to_vec).collect()
    }

    /// One head of a projection, [T][d].
    fn head(rows: &[Vec<f64>], head: usize, width: usize) -> Vec<Vec<f64>> {
        rows.iter().map(|row| row[head * width..(head + 1) * width].to_vec()).collect()
    }

    /// The pairs of features at position `t`, turned.
    fn rotate(&self, x: &[f64], t: usize) -> Vec<f64> {
        let freqs = values(&self.vs.variables()["rotary_emb.freqs"]);
        let turn = |(pair, &freq): (&[f64], &f64)| {
            let turned = Complex64::new(pair[0], pair[1]) * Complex64::cis(t as f64 * freq);
            [turned.re, turned.im]
        };
        x.chunks(2).zip(&freqs).flat_map(turn).collect()
    }

    /// a of a pre-activation.
    fn decay(&self, z: &[f64]) -> Complex64 {
        let z = match self.config.transition {
            TransitionMode::Complex => Complex64::new(z[0], z[1]),
            _ => Complex64::new(z[0], 0.0),
        };
        z / z.norm() / (1.0 + (-z.norm()).exp())
    }

    /// What multiplies the product of pair p of the query i with that of the key j.
    fn weight(&self, decays: &[Vec<Complex64>], i: usize, j: usize, p: usize) -> f64 {
        match self.config.rel_pos {
            Some(RelPos::Corrected) => (j + 1..=i).map(|m| decays[m][p]).product::<Complex64>().re,
            Some(RelPos::AsReference) => {
                let factor = |t: usize| decays[t][..=p].iter().product::<Complex64>().re.max(1e-10);
                factor(i) / factor(j)
            }
            None => 1.0,
        }
    }

    fn output(&self) -> Tensor {
        let AttentionConfig { dim_head: d, heads, .. } = *self.config;
        let (d, heads) = (d as usize, heads as usize);
        let fades =
            self.config.rel_pos.is_some() && self.config.transition != TransitionMode::Identity;
        let qkv = self.project(&self.x, "to_qkv.0.weight", None);
        let mut merged = vec![vec![0.0; heads * d]; SEQLEN];
        for head in 0..heads {
            let [mut q, mut k, v] = [0, 1, 2].map(|part| Self::head(&qkv, part * heads + head, d));
            if self.config.rotary_emb {
                for x in [&mut q, &mut k] {
                    *x = x.iter().enumerate().map(|(t, x)| self.rotate(x, t)).collect();
                }
            }
            let decays: Vec<Vec<Complex64>> = if fades {
                let z = self.project(&self.x, "to_a.0.weight", None);
                let z = Self::head(&z, head, d);
                z.iter().map(|z| z.chunks(2).map(|z| self.decay(z)).collect()).collect()
            } else {
                vec![vec![]; SEQLEN]
            };
            for i in 0..SEQLEN {
                let score = |j: usize| {
                    let products = q[i].iter().zip(&k[j]).enumerate();
                    let weight =
                        |f: usize| if fades { self.weight(&decays, i, j, f / 2) } else { 1.0 };
                    products.map(|(f, (q, k))| weight(f) * q * k).sum::<f64>() / (d as f64).sqrt()
                };
                let first =
                    self.config.window.map_or(0, |window| (i + 1).saturating_sub(window as usize));
                let mut weights: Vec<f64> = (first..=i).map(score).collect();
                if self.config.softmax_normalize.unwrap_or(self.config.rel_pos.is_none()) {
                    let largest = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let total: f64 = weights.iter().map(|w| (w - largest).exp()).sum();
                    weights = weights.iter().map(|w| (w - largest).exp() / total).collect();
                }
                for (weight, v) in weights.iter().zip(&v[first..]) {
                    for (f, v) in v.iter().enumerate() {
                        merged[i][head * d + f] += weight * v;
                    }
                }
            }
        }
        if self.config.swish_gating {
            let gates = self.project(&self.x, "to_gates.0.weight", None);
            for (y, gate) in merged.iter_mut().flatten().zip(gates.iter().flatten()) {
                *y *= gate / (1.0 + (-gate).exp());
            }
        }
        let merged = Tensor::from_slice(&merged.concat()).view([SEQLEN as i64, -1]);
        let y = self.project(&merged, "to_out.1.weight", Some("to_out.1.bias"));
        Tensor::from_slice(&y.concat()).view([1, SEQLEN as i64, DIM])
    }
}

#[test]
fn every_variant_follows_its_formula() -> TestResult {
    for config in attentions() {
        let (vs, layer) = build(|path| config.init(path));
        let x = tensor(&[1, SEQLEN as i64, DIM], Kind::Double, 80);
        let y = layer.forward(&x)?;
        let oracle = Oracle { config: &config, vs: &vs, x: x.squeeze_dim(0) };
        // Scores of d features, weights over T tokens, an output of all heads.
        let steps = SEQLEN as i64 * config.dim_head * config.heads;
        let what = format!("{config:?}");
        assert_close(&what, &y, &oracle.output(), tolerance(Kind::Double, steps));
    }
    Ok(())
}

#[test]
fn decays_over_a_long_sequence_stay_finite() -> TestResult {
    let plain = AttentionConfig { dim_head: 4, heads: 2, ..AttentionConfig::new(DIM) };
    let config = AttentionConfig { rel_pos: Some(RelPos::Corrected), ..plain };
    let (mut vs, layer) = build(|path| config.init(path));
    vs.set_kind(Kind::Float);
    // A product of 300 decays of about one half is below the smallest f32.
    let x = tensor(&[1, 300, DIM], Kind::Float, 81).set_requires_grad(true);
    let y = layer.forward(&x)?;
    y.sum(Kind::Float).backward();
    assert!(values(&y).iter().chain(&values(&x.grad())).all(|x| x.is_finite()));
    Ok(())
}
