//! Lesson 2: the linear recurrence as a differentiable operation.
//!
//! `cargo run -p gateloop-nn --example 02-differentiable-scan`
//!
//! h[t] = a[t] h[t-1] + b[t]. Gradients flow to a, b and the initial state, through all states and
//! through the last one, so that a long sequence may be cut and still be learned as a whole.

use gateloop_nn::{Result, ScanOptions, scan, scan_with};
use gateloop_scan::Algorithm;
use tch::{Kind, Tensor};

fn main() -> Result<()> {
    let row = |values: &[f64]| Tensor::from_slice(values).view([1, -1, 1]); // [B, T, C]
    let a = row(&[0.5, 0.5, 0.9, 0.9]).set_requires_grad(true);
    let b = row(&[1.0, 0.0, 0.0, 2.0]).set_requires_grad(true);
    let h0 = Tensor::from_slice(&[8.0]).view([1, 1]).set_requires_grad(true);

    let (h, h_last) = scan(&a, &b, Some(&h0))?;
    println!("states          {}", show(&h)?);

    // How much does each operand matter for the last state?
    h_last.sum(Kind::Double).f_backward()?;
    println!("d h_last / d a  {}", show(&a.grad())?);
    println!("d h_last / d b  {}", show(&b.grad())?);
    println!("d h_last / d h0 {}", show(&h0.grad())?);

    // The same in two pieces: the state is handed over.
    let piece = |x: &Tensor, start| x.narrow(1, start, 2);
    let (_, middle) = scan(&piece(&a, 0), &piece(&b, 0), Some(&h0))?;
    let (_, end) = scan(&piece(&a, 2), &piece(&b, 2), Some(&middle))?;
    println!("in two pieces   {} = {}", show(&end)?, show(&h_last)?);

    // Another direction, another algorithm, two documents packed in one row.
    let options = ScanOptions {
        algorithm: Algorithm::Tree,
        reverse: true,
        segment_starts: Some(vec![true, false, true, false]),
    };
    let (h, _) = scan_with(&a, &b, None, &options)?;
    println!("from the right  {}", show(&h)?);
    Ok(())
}

fn show(x: &Tensor) -> Result<String> {
    Ok(format!("{:.4?}", Vec::<f64>::try_from(x.detach().view(-1))?))
}
