//! The linear recurrence of gated linear sequence models, on the CPU, with its gradient.
//!
//! ```text
//! h[b,t,c] = a[b,t,c] h[b,t-1,c] + b[b,t,c]        h[b,-1,c] = h0[b,c], or 0
//! ```
//!
//! over row-major `[B, T, C]` arrays of `f32`, `f64`, `Complex<f32>` or `Complex<f64>`. Slices go
//! in and slices come out; there is no tensor type, no framework and no global state.
//!
//! ```
//! use gateloop_scan::{Algorithm, Scan, ScanShape};
//!
//! // Two sequences of three tokens, one channel: a running sum, and a leaky one.
//! let shape = ScanShape::new(2, 3, 1)?;
//! let a = [1.0_f32, 1.0, 1.0, 0.5, 0.5, 0.5];
//! let b = [1.0_f32, 2.0, 3.0, 1.0, 2.0, 3.0];
//!
//! let scan = Scan::new(shape, &a, &b)?;
//! let h = scan.run(Algorithm::Auto)?;
//! assert_eq!(h, [1.0, 3.0, 6.0, 1.0, 2.5, 4.25]);
//! assert_eq!(scan.last_state(&h)?, [6.0, 4.25]);
//!
//! // The gradient of sum(h) with respect to decays and inputs.
//! let grads = scan.adjoint(Algorithm::Auto, &h, &[1.0; 6], None)?;
//! assert_eq!(grads.db, [3.0, 2.0, 1.0, 1.75, 1.5, 1.0]);
//! # Ok::<(), gateloop_scan::ScanError>(())
//! ```
//!
//! # Algorithms
//! All compute the same function, forward and adjoint, for every element type, any length, either
//! direction, with initial state and segments. They differ in speed and rounding only.
//!
//! | [`Algorithm`] | idea | threads | extra memory | for |
//! | --- | --- | --- | --- | --- |
//! | `Naive` | the loop over time | 1 | none | the ground truth |
//! | `Tree` | pair neighbours, scan the pairs, fill in | 1 | 3 arrays of the input's size | comparison with associative scans |
//! | `Heinsen` | logarithms and signs or phases | 1 | one state | a check that shares no arithmetic with the others |
//! | `Chunked` | channels are the vector, time streams | all | one state a chunk, if time is cut | everything; [`Algorithm::Auto`] picks it |
//!
//! `Chunked` gives the same bits for any number of threads and any instruction set, and no
//! algorithm lets a token change a state before it.
//!
//! # Finding one's way
//! - [`Scan`]: the problem, and [`Scan::run`], [`Scan::adjoint`], [`Scan::last_state`].
//! - [`gate_loop`]: the operators of GateLoop layers, fused where a head is one channel, chunkwise where it is wider.
//! - [`step()`]: one token at a time, for decoding.
//! - [`Scan::map_into`], [`Scan::entry_gradient_into`]: what a slice of a longer sequence does to the state that enters it.
//! - [`Affine`]: the monoid behind the parallel algorithms.
//! - [`Tolerance`], [`Scan::magnitude`]: how far results may be from exact ones, and why.
//! - [`ParallelFor`]: the threads to use, if not rayon's.
//! - `cuda` (with the feature of that name): the scan and the fused operators on NVIDIA GPUs.

mod adjoint;
mod affine;
mod algorithm;
mod chunked;
#[cfg(feature = "cuda")]
pub mod cuda;
mod element;
mod error;
pub mod gate_loop;
mod heinsen;
mod magnitude;
mod naive;
mod parallel;
mod problem;
mod run;
mod shape;
mod slice;
mod step;
mod tolerance;
mod tree;

pub use adjoint::{OwnedGrads, ScanGrads};
pub use affine::Affine;
pub use algorithm::Algorithm;
pub use element::ScanElement;
pub use error::ScanError;
pub use magnitude::GradMagnitudes;
pub use num_complex::Complex;
pub use parallel::{ParallelFor, Rayon};
pub use problem::Scan;
pub use shape::ScanShape;
pub use step::step;
pub use tolerance::{Mismatch, Tolerance};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
