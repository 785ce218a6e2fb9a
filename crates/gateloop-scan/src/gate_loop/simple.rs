//! SimpleGateLoop: `h = sigmoid(z) h + kv`, `y = q h`, all real.

use core::marker::PhantomData;

use super::GateMode;
use super::kind::{Grads, Input, Kind, Row};
use super::planes::{Decays, Planes};
use super::real::{Arithmetic, Real};

/// `h = sigmoid(z) h + kv`, `y = q h`.
#[derive(Debug, Clone, Copy)]
pub struct Simple<R>(PhantomData<R>);

impl<R: Real> Kind for Simple<R> {
    type Real = R;
    type State = R;
    const NAME: &'static str = "SimpleGateLoop";
    const GATE_PARTS: usize = 1;

    #[inline(always)]
    fn load(state: &[R], planes: &mut Planes<R>) {
        planes.re_mut().copy_from_slice(state);
    }

    #[inline(always)]
    fn store(planes: &Planes<R>, state: &mut [R]) {
        state.copy_from_slice(planes.re());
    }

    #[inline(always)]
    fn decays(_mode: GateMode, z: &[R], decays: &mut Decays<'_, R>) {
        gates(z, decays.re, decays.along);
    }

    #[inline(always)]
    fn advance(decays: &Decays<'_, R>, input: Input<'_, R>, before: &Planes<R>, h: &mut Planes<R>) {
        let inputs = decays.re.iter().zip(before.re()).zip(input.k);
        for (h, ((&a, &before), &kv)) in h.re_mut().iter_mut().zip(inputs) {
            *h = a * before + kv;
        }
    }

    #[inline(always)]
    fn compose(
        decays: &Decays<'_, R>,
        input: Input<'_, R>,
        offset: &mut Planes<R>,
        factor: &mut Planes<R>,
    ) {
        for ((h, &a), &kv) in offset.re_mut().iter_mut().zip(&*decays.re).zip(input.k) {
            *h = a * *h + kv;
        }
        for (p, &a) in factor.re_mut().iter_mut().zip(&*decays.re) {
            *p = a * *p;
        }
    }

    #[inline(always)]
    fn retreat(row: &Row<'_, R>, grads: &mut Grads<'_, R>) {
        let n = row.q.len();
        let g = &mut grads.scratch.g_re[..n];
        let c = grads.c.re_mut();
        state_gradient([row.q, row.dy, c], g);
        for ((dq, &dy), &h) in grads.dq.iter_mut().zip(row.dy).zip(row.after) {
            *dq = dy * h;
        }
        for ((c, &a), &g) in c.iter_mut().zip(&*row.decays.re).zip(&*g) {
            *c = a * g;
        }
        grads.dk[..n].copy_from_slice(g);
        let Some((h, _)) = row.before else { return grads.dz.fill(R::ZERO) };
        gate_gradient([g, h, row.decays.along], row.fraction, grads.dz);
    }
}

/// `sigmoid(z)` and its derivative.
#[inline(always)]
fn gates<R: Real>(z: &[R], a: &mut [R], slope: &mut [R]) {
    for ((&z, a), slope) in z.iter().zip(a).zip(slope) {
        let fading = (-Arithmetic::abs(z)).exp_of_negative();
        let large = R::ONE / (R::ONE + fading);
        let small = fading * large;
        *a = if z < R::ZERO { small } else { large };
        *slope = large * small;
    }
}

/// `g = q dy + c`
#[inline(always)]
fn state_gradient<R: Real>([q, dy, c]: [&[R]; 3], g: &mut [R]) {
    for (((g, &q), &dy), &c) in g.iter_mut().zip(q).zip(dy).zip(c) {
        *g = q * dy + c;
    }
}

/// `dz = g h sigmoid'(z)`
#[inline(always)]
fn gate_gradient<R: Real>([g, h, slope]: [&[R]; 3], fraction: R, dz: &mut [R]) {
    for (((dz, &g), &h), &slope) in dz.iter_mut().zip(g).zip(h).zip(slope) {
        *dz = g * h * (slope * fraction);
    }
}
