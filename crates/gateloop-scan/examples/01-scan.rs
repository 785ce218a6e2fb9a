//! Lesson 1: the recurrence, and the ways to hand it over.
//!
//! `cargo run -p gateloop-scan --example 01-scan`

use gateloop_scan::{Algorithm, Scan, ScanError, ScanShape, step};

fn main() -> Result<(), ScanError> {
    // One sequence of six tokens, two channels: row-major [B, T, C], the channels of a token side
    // by side. Channel 0 forgets half of its state with each token, channel 1 forgets nothing.
    let shape = ScanShape::new(1, 6, 2)?;
    let a = [0.5_f32, 1.0].repeat(6);
    let b = [1.0_f32, 1.0].repeat(6);
    let scan = Scan::new(shape, &a, &b)?;
    let h = scan.run(Algorithm::Auto)?;
    println!("states            {:?}", rows(&h));

    // Every algorithm computes the same function.
    assert_eq!(h, scan.run(Algorithm::Tree)?);

    // A sequence can be cut anywhere: the last state of one piece is the initial state of the next.
    let half = ScanShape::new(1, 3, 2)?;
    let first = Scan::new(half, &a[..6], &b[..6])?;
    let first_h = first.run(Algorithm::Auto)?;
    let carried = first.last_state(&first_h)?;
    let second = Scan::new(half, &a[6..], &b[6..])?.with_initial_state(&carried)?;
    assert_eq!(h[6..], second.run(Algorithm::Auto)?);
    println!("carried over      {carried:?}");

    // Or one token at a time, as in decoding: the state is all that is kept.
    let mut state = carried;
    step(&a[6..8], &b[6..8], &mut state)?;
    assert_eq!(state, h[6..8]);
    println!("one token later   {state:?}");

    // Two documents in one sequence: nothing of the first reaches the second.
    let starts = [true, false, false, false, true, false];
    let packed = scan.with_segment_starts(&starts)?.run(Algorithm::Auto)?;
    println!("in two segments   {:?}", rows(&packed));

    // The other direction: h[t] = a[t] h[t+1] + b[t].
    let backwards = scan.reversed().run(Algorithm::Auto)?;
    println!("from the end      {:?}", rows(&backwards));

    // What does not fit is an error that names the operand.
    if let Err(error) = Scan::new(shape, &a[1..], &b) {
        println!("and a mistake     {error}");
    }
    Ok(())
}

fn rows(h: &[f32]) -> Vec<&[f32]> {
    h.chunks(2).collect()
}
