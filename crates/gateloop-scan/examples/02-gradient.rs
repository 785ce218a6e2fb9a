//! Lesson 2: gradients, by teaching a recurrence its own decay.
//!
//! `cargo run -p gateloop-scan --example 02-gradient`
//!
//! A complex state that turns by 0.3 and shrinks by 0.95 with each token gives the targets. Gradient
//! descent on the distance finds both numbers again, through 64 tokens.

use gateloop_scan::{Algorithm, Complex, Scan, ScanError, ScanShape};

fn main() -> Result<(), ScanError> {
    let tokens = 64;
    let shape = ScanShape::new(1, tokens, 1)?;
    let hidden = Complex::from_polar(0.95_f64, 0.3);

    // An impulse, and then nothing: the state shows the powers of the decay.
    let mut b = vec![Complex::ZERO; tokens];
    b[0] = Complex::ONE;
    let target = Scan::new(shape, &vec![hidden; tokens], &b)?.run(Algorithm::Auto)?;

    let mut guess = Complex::from_polar(0.8, 0.2);
    for round in 0..=400 {
        let a = vec![guess; tokens];
        let scan = Scan::new(shape, &a, &b)?;
        let h = scan.run(Algorithm::Auto)?;

        // loss = sum |h - target|^2 / 2, so the gradient of a state is its error. The convention
        // is libtorch's: d loss / d re + i d loss / d im, the direction of steepest ascent.
        let dh: Vec<_> = h.iter().zip(&target).map(|(h, target)| h - target).collect();
        let loss: f64 = dh.iter().map(|d| d.norm_sqr() / 2.0).sum();
        let grads = scan.adjoint(Algorithm::Auto, &h, &dh, None)?;

        if round % 100 == 0 {
            println!(
                "{round:>4}  loss {loss:.2e}  |a| {:.5}  arg a {:.5}",
                guess.norm(),
                guess.arg()
            );
        }
        // All tokens share the one decay, so its gradient is the sum of theirs.
        guess -= grads.da.iter().sum::<Complex<f64>>() * 0.001;
    }
    Ok(())
}
