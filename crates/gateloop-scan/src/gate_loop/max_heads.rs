//! GateLoop with heads of width 1: `h = a h + k v` with a complex `a = sigmoid(|z|) e^{i arg z}`, and
//! `y = q Re(h)` (arXiv 2311.01927, with the reference's activation).
//!
//! No trigonometry: `a = z sigmoid(|z|) / |z|`.

use core::marker::PhantomData;

use crate::{Complex, ScanElement};

use super::GateMode;
use super::kind::{Grads, Input, Kind, Row};
use super::planes::{Decays, Planes, Scratch};
use super::real::{Arithmetic, Real};

/// `h = a h + k v` with a complex decay, `y = q Re(h)`.
#[derive(Debug, Clone, Copy)]
pub struct MaxHeads<R>(PhantomData<R>);

impl<R: Real> Kind for MaxHeads<R>
where
    Complex<R>: ScanElement,
{
    type Real = R;
    type State = Complex<R>;
    const NAME: &'static str = "GateLoop";
    const GATE_PARTS: usize = 2;

    #[inline(always)]
    fn load(state: &[Complex<R>], planes: &mut Planes<R>) {
        let (re, im) = planes.both_mut();
        for ((state, re), im) in state.iter().zip(re).zip(im) {
            (*re, *im) = (state.re, state.im);
        }
    }

    #[inline(always)]
    fn store(planes: &Planes<R>, state: &mut [Complex<R>]) {
        for ((state, &re), &im) in state.iter_mut().zip(planes.re()).zip(planes.im()) {
            *state = Complex { re, im };
        }
    }

    #[inline(always)]
    fn decays(mode: GateMode, z: &[R], decays: &mut Decays<'_, R>) {
        let Decays { re, im, along, across } = decays;
        match mode {
            GateMode::Complex => complex_decays(z, re, im, along, across),
            GateMode::Real => {
                im.fill(R::ZERO);
                across.fill(R::ZERO);
                real_decays(z, re, along);
            }
            GateMode::Identity => {
                re.fill(R::ONE);
                for part in [im, along, across] {
                    part.fill(R::ZERO);
                }
            }
        }
    }

    #[inline(always)]
    fn advance(decays: &Decays<'_, R>, input: Input<'_, R>, before: &Planes<R>, h: &mut Planes<R>) {
        let (re, im) = h.both_mut();
        let (k, v) = (input.k, input.v.unwrap_or(input.k));
        advance([decays.re, decays.im], [k, v], [before.re(), before.im()], re, im);
    }

    #[inline(always)]
    fn compose(
        decays: &Decays<'_, R>,
        input: Input<'_, R>,
        offset: &mut Planes<R>,
        factor: &mut Planes<R>,
    ) {
        let (k, v) = (input.k, input.v.unwrap_or(input.k));
        let a = [&*decays.re, &*decays.im];
        let (re, im) = offset.both_mut();
        advance_in_place(a, [k, v], re, im);
        let (re, im) = factor.both_mut();
        multiply_in_place(a, re, im);
    }

    #[inline(always)]
    fn retreat(row: &Row<'_, R>, grads: &mut Grads<'_, R>) {
        let (k, v) = (row.input.k, row.input.v.unwrap_or(row.input.k));
        let n = row.q.len();
        let Scratch { g_re, g_im, da_re, da_im } = &mut *grads.scratch;
        let [g_re, g_im, da_re, da_im] = [g_re, g_im, da_re, da_im].map(|part| &mut part[..n]);
        let (c_re, c_im) = grads.c.both_mut();
        state_gradient([row.q, row.dy, c_re, c_im], g_re, g_im);
        operand_gradients([row.dy, row.after, k, v, g_re], grads.dq, grads.dk, grads.dv);
        let a = [&*row.decays.re, &*row.decays.im];
        handed_on(a, [g_re, g_im], c_re, c_im);
        let Some((h_re, h_im)) = row.before else { return grads.dz.fill(R::ZERO) };
        decay_gradient([g_re, g_im, h_re, h_im], da_re, da_im);
        let slopes = [&*row.decays.along, &*row.decays.across];
        gate_gradient(a, slopes, row.fraction, da_re, da_im);
        for ((dz, &re), &im) in grads.dz.chunks_exact_mut(2).zip(&*da_re).zip(&*da_im) {
            (dz[0], dz[1]) = (re, im);
        }
    }
}

// Each of these is one loop whose outputs are arguments of their own: that is how the compiler knows
// that they do not overlap.

/// `h = a before + k v`
#[inline(always)]
fn advance<R: Real>(
    [a_re, a_im]: [&[R]; 2],
    [k, v]: [&[R]; 2],
    [before_re, before_im]: [&[R]; 2],
    h_re: &mut [R],
    h_im: &mut [R],
) {
    let n = h_re.len();
    let (a_re, a_im, k, v) = (&a_re[..n], &a_im[..n], &k[..n], &v[..n]);
    let (before_re, before_im, h_im) = (&before_re[..n], &before_im[..n], &mut h_im[..n]);
    for i in 0..n {
        h_re[i] = a_re[i] * before_re[i] - a_im[i] * before_im[i] + k[i] * v[i];
        h_im[i] = a_re[i] * before_im[i] + a_im[i] * before_re[i];
    }
}

/// `h <- a h + k v`, rounded as [`advance`] does.
#[inline(always)]
fn advance_in_place<R: Real>(
    [a_re, a_im]: [&[R]; 2],
    [k, v]: [&[R]; 2],
    h_re: &mut [R],
    h_im: &mut [R],
) {
    let n = h_re.len();
    let (a_re, a_im, k, v) = (&a_re[..n], &a_im[..n], &k[..n], &v[..n]);
    let h_im = &mut h_im[..n];
    for i in 0..n {
        let (re, im) = (h_re[i], h_im[i]);
        h_re[i] = a_re[i] * re - a_im[i] * im + k[i] * v[i];
        h_im[i] = a_re[i] * im + a_im[i] * re;
    }
}

/// `p <- a p`
#[inline(always)]
fn multiply_in_place<R: Real>([a_re, a_im]: [&[R]; 2], p_re: &mut [R], p_im: &mut [R]) {
    let n = p_re.len();
    let (a_re, a_im, p_im) = (&a_re[..n], &a_im[..n], &mut p_im[..n]);
    for i in 0..n {
        let (re, im) = (p_re[i], p_im[i]);
        p_re[i] = a_re[i] * re - a_im[i] * im;
        p_im[i] = a_re[i] * im + a_im[i] * re;
    }
}

/// `g = q dy + c`
#[inline(always)]
fn state_gradient<R: Real>([q, dy, c_re, c_im]: [&[R]; 4], g_re: &mut [R], g_im: &mut [R]) {
    for (((g, &q), &dy), &c) in g_re.iter_mut().zip(q).zip(dy).zip(c_re) {
        *g = q * dy + c;
    }
    g_im.copy_from_slice(c_im);
}

/// `dq = dy Re(h)`, `dk = Re(g) v`, `dv = Re(g) k`
#[inline(always)]
fn operand_gradients<R: Real>(
    [dy, after, k, v, g]: [&[R]; 5],
    dq: &mut [R],
    dk: &mut [R],
    dv: &mut [R],
) {
    for ((dq, &dy), &h) in dq.iter_mut().zip(dy).zip(after) {
        *dq = dy * h;
    }
    for ((dk, &g), &v) in dk.iter_mut().zip(g).zip(v) {
        *dk = g * v;
    }
    for ((dv, &g), &k) in dv.iter_mut().zip(g).zip(k) {
        *dv = g * k;
    }
}

/// `c = conj(a) g`
#[inline(always)]
fn handed_on<R: Real>(
    [a_re, a_im]: [&[R]; 2],
    [g_re, g_im]: [&[R]; 2],
    c_re: &mut [R],
    c_im: &mut [R],
) {
    let n = c_re.len();
    let (a_re, a_im, g_re, g_im) = (&a_re[..n], &a_im[..n], &g_re[..n], &g_im[..n]);
    let c_im = &mut c_im[..n];
    for i in 0..n {
        c_re[i] = a_re[i] * g_re[i] + a_im[i] * g_im[i];
        c_im[i] = a_re[i] * g_im[i] - a_im[i] * g_re[i];
    }
}

/// `da = g conj(h)` with the state h before the row.
#[inline(always)]
fn decay_gradient<R: Real>([g_re, g_im, h_re, h_im]: [&[R]; 4], re: &mut [R], im: &mut [R]) {
    let n = re.len();
    let (g_re, g_im, h_re, h_im) = (&g_re[..n], &g_im[..n], &h_re[..n], &h_im[..n]);
    let im = &mut im[..n];
    for i in 0..n {
        re[i] = g_re[i] * h_re[i] + g_im[i] * h_im[i];
        im[i] = g_im[i] * h_re[i] - g_re[i] * h_im[i];
    }
}

/// da becomes dz: along the direction of z the modulus turns, across it the phase.
///
/// With the unit vector u = a/|a|, s = |a| and r = |z|: `dz = u (u . da) s' + u' (u x da) s/r`, where
/// `s' = s (1 - s)` and u' is u turned by 90 degrees. In terms of a, s drops out: the slopes are
/// `along = s'/s^2 = e^-r` and `across = 1/(r s)`.
#[inline(always)]
fn gate_gradient<R: Real>(
    [a_re, a_im]: [&[R]; 2],
    [along, across]: [&[R]; 2],
    fraction: R,
    re: &mut [R],
    im: &mut [R],
) {
    let n = re.len();
    let (a_re, a_im, along, across) = (&a_re[..n], &a_im[..n], &along[..n], &across[..n]);
    let im = &mut im[..n];
    for i in 0..n {
        let along = (a_re[i] * re[i] + a_im[i] * im[i]) * (along[i] * fraction);
        let across = (a_re[i] * im[i] - a_im[i] * re[i]) * (across[i] * fraction);
        re[i] = a_re[i] * along - a_im[i] * across;
        im[i] = a_im[i] * along + a_re[i] * across;
    }
}

/// Within [-HUGE, HUGE]; NaN stays.
#[inline(always)]
fn bounded<R: Real>(x: R) -> R {
    let below = if x > R::HUGE { R::HUGE } else { x };
    if below < -R::HUGE { -R::HUGE } else { below }
}

/// a and the slopes of [`gate_gradient`], in several short loops: one that does it all would not be
/// vectorised.
#[inline(always)]
fn complex_decays<R: Real>(z: &[R], re: &mut [R], im: &mut [R], along: &mut [R], across: &mut [R]) {
    for ((z, re), im) in z.chunks_exact(2).zip(&mut *re).zip(&mut *im) {
        (*re, *im) = (bounded(z[0]), bounded(z[1]));
    }
    moduli(re, im, across);
    for (fading, &r) in along.iter_mut().zip(&*across) {
        *fading = (-r).exp_of_negative();
    }
    decays_of_parts(re, im, along, across);
}

/// r = |z|
#[inline(always)]
fn moduli<R: Real>(re: &[R], im: &[R], r: &mut [R]) {
    for ((r, &x), &y) in r.iter_mut().zip(re).zip(im) {
        let square = x * x + y * y;
        // A square that is too small to have all its digits is taken of a larger number.
        let (large_x, large_y) = (x * R::UP, y * R::UP);
        let small = Arithmetic::sqrt(large_x * large_x + large_y * large_y) * (R::ONE / R::UP);
        let usual = Arithmetic::sqrt(square);
        *r = if square < R::SMALL_SQUARE { small } else { usual };
    }
}

/// From z in `re` and `im`, e^-r in `along` and r in `across`.
#[inline(always)]
fn decays_of_parts<R: Real>(re: &mut [R], im: &mut [R], along: &mut [R], across: &mut [R]) {
    let n = re.len();
    let (im, along, across) = (&mut im[..n], &mut along[..n], &mut across[..n]);
    for i in 0..n {
        let whole = R::ONE + along[i];
        // arg 0 is 0, at negative zero it is pi; and a zero has no direction to turn.
        let is_zero = across[i] < R::TINY;
        let r = if is_zero { R::ONE } else { across[i] };
        let scale = R::ONE / (r * whole);
        let (turned, at_zero) = (re[i] * scale, scale.copysign(re[i]));
        let slopes = (along[i], scale * whole * whole);
        re[i] = if is_zero { at_zero } else { turned };
        im[i] = im[i] * scale;
        along[i] = if is_zero { R::ZERO } else { slopes.0 };
        across[i] = if is_zero { R::ZERO } else { slopes.1 };
    }
}

#[inline(always)]
fn real_decays<R: Real>(z: &[R], re: &mut [R], along: &mut [R]) {
    for ((z, a), along) in z.chunks_exact(2).zip(re).zip(along) {
        let fading = (-Arithmetic::abs(z[0])).exp_of_negative();
        let size = R::ONE / (R::ONE + fading);
        *a = if z[0] < R::ZERO { -size } else { size };
        *along = if z[0] == R::ZERO { R::ZERO } else { fading };
    }
}
