//! The answers, by loops over time in double precision.

use gateloop_scan::Complex;
use gateloop_scan::cuda::Dtype;

pub(crate) type C = Complex<f64>;

/// The largest relative error of a right answer.
pub(crate) const fn allowed(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::Bf16 => 1e-2,
        Dtype::F16 => 1e-3,
        Dtype::F64 | Dtype::C128 => 1e-13,
        _ => 1e-5,
    }
}

/// `h[t] = a[t] h[t-1] + b[t]`.
pub(crate) fn scan(a: &[C], b: &[C]) -> Vec<C> {
    let mut h = C::default();
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            h = a * h + b;
            h
        })
        .collect()
}

/// `g[t] = dh[t] + conj(a[t+1]) g[t+1]`, the gradient of the inputs.
pub(crate) fn adjoint(a: &[C], dh: &[C]) -> Vec<C> {
    let mut f = C::default();
    let mut g: Vec<C> = a
        .iter()
        .zip(dh)
        .rev()
        .map(|(a, dh)| {
            let g = dh + f;
            f = a.conj() * g;
            g
        })
        .collect();
    g.reverse();
    g
}

/// The decay of a fused operator.
pub(crate) fn decay(z: C, complex: bool) -> C {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    if complex { C::from_polar(sigmoid(z.norm()), z.arg()) } else { C::from(sigmoid(z.re)) }
}

/// Relative RMS of the difference.
pub(crate) fn distance(got: &[C], want: &[C]) -> f64 {
    let error: f64 = got.iter().zip(want).map(|(g, w)| (g - w).norm_sqr()).sum();
    let size: f64 = want.iter().map(C::norm_sqr).sum();
    if error.is_nan() { f64::INFINITY } else { (error / size.max(f64::MIN_POSITIVE)).sqrt() }
}
