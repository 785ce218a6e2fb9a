//! The scan by our algorithms and by the loop that anyone would write first.

use crate::aligned::Aligned;
use crate::error::{Problem, Result};
use crate::key::Pass;
use crate::work::Work;
use gateloop_benches::{Sample, is_right, operands};
use gateloop_scan::{Algorithm, Scan, ScanGrads, ScanShape, Tolerance};

/// How it is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Library(Algorithm),
    /// Row after row, on one thread.
    Scalar,
}

/// Arrays of one scan; the last three are empty where only the forward pass is timed.
struct ScanWork<E> {
    how: How,
    shape: ScanShape,
    a: Aligned<E>,
    b: Aligned<E>,
    h: Aligned<E>,
    dh: Aligned<E>,
    da: Aligned<E>,
    db: Aligned<E>,
}

/// The scan of a side, its answer compared with the naive scan's.
pub(crate) fn checked<E: Sample>(
    shape: ScanShape,
    pass: Pass,
    side: &str,
) -> Result<Box<dyn Work>> {
    let how = match side {
        "ours" => How::Library(Algorithm::Auto),
        "naive" => How::Library(Algorithm::Naive),
        "scalar" => How::Scalar,
        _ => return Err(Problem::Unknown { key: format!("scan@{side}") }),
    };
    let (a, b) = operands::<E>(shape);
    // Written before the clock runs, so that no page is mapped while it does.
    let filled = |wanted| if wanted { vec![E::ONE; shape.len()] } else { Vec::new() };
    let adjoint = pass == Pass::Gradient;
    let dh = if adjoint { operands::<E>(shape).1 } else { Vec::new() };
    let (h, da, db) = (filled(true), filled(adjoint), filled(adjoint));
    let [a, b, h, dh, da, db] = [a, b, h, dh, da, db].map(Aligned::from);
    let mut work = ScanWork { how, shape, a, b, h, dh, da, db };
    work.run()?;
    work.check()?;
    Ok(Box::new(work))
}

impl<E: Sample> ScanWork<E> {
    fn is_adjoint(&self) -> bool {
        !self.dh.is_empty()
    }

    fn check(&self) -> Result<()> {
        let scan = Scan::new(self.shape, &self.a, &self.b)?;
        is_right(&scan, &self.h).map_err(Problem::Wrong)?;
        if self.is_adjoint() {
            let naive = scan.adjoint(Algorithm::Naive, &self.h, &self.dh, None)?;
            // Two computations that round alike, each of a scan and a product.
            let tolerance = Tolerance::of::<E>(self.shape.seqlen).times(4.0);
            for (name, ours, naive) in [("da", &self.da, &naive.da), ("db", &self.db, &naive.db)] {
                let compared = tolerance.check_uniform(ours, naive);
                compared.map_err(|mismatch| Problem::Wrong(format!("{name}: {mismatch}")))?;
            }
        }
        Ok(())
    }
}

impl<E: Sample> Work for ScanWork<E> {
    fn run(&mut self) -> Result<()> {
        let adjoint = self.is_adjoint();
        match self.how {
            How::Library(algorithm) => {
                let scan = Scan::new(self.shape, &self.a, &self.b)?;
                scan.run_into(algorithm, &mut self.h)?;
                if adjoint {
                    let grads = ScanGrads { da: &mut self.da, db: &mut self.db, dh0: None };
                    scan.adjoint_into(algorithm, &self.h, &self.dh, None, grads)?;
                }
            }
            How::Scalar => {
                scalar_forward(self.shape, &self.a, &self.b, &mut self.h);
                if adjoint {
                    scalar_adjoint(self);
                }
            }
        }
        std::hint::black_box(&mut self.h);
        Ok(())
    }
}

fn scalar_forward<E: Sample>(shape: ScanShape, a: &[E], b: &[E], h: &mut [E]) {
    let (row, sequence) = (shape.channels, shape.seqlen * shape.channels);
    for ((a, b), h) in a.chunks(sequence).zip(b.chunks(sequence)).zip(h.chunks_exact_mut(sequence))
    {
        h[..row].copy_from_slice(&b[..row]);
        for t in (row..sequence).step_by(row) {
            let (before, now) = h.split_at_mut(t);
            let rows = before[t - row..].iter().zip(&a[t..t + row]).zip(&b[t..t + row]);
            for (h, ((&before, &a), &b)) in now.iter_mut().zip(rows) {
                *h = a * before + b;
            }
        }
    }
}

fn scalar_adjoint<E: Sample>(work: &mut ScanWork<E>) {
    let (row, tokens) = (work.shape.channels, work.shape.seqlen);
    let mut g = vec![E::ZERO; row];
    for batch in 0..work.shape.batch {
        g.fill(E::ZERO);
        for t in (0..tokens).rev() {
            let at = (batch * tokens + t) * row;
            for (c, g) in g.iter_mut().enumerate() {
                // Here `g` is conj(a[t+1]) g[t+1].
                let sum = work.dh[at + c] + *g;
                work.db[at + c] = sum;
                let before = if t == 0 { E::ZERO } else { work.h[at - row + c] };
                work.da[at + c] = sum * before.conj();
                *g = work.a[at + c].conj() * sum;
            }
        }
    }
}
