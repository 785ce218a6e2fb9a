//! Bad input comes back as an error that names what is wrong, and nothing is written.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

use gateloop_scan::{Algorithm, Scan, ScanError, ScanGrads, ScanShape, step};

const SHAPE: (usize, usize, usize) = (2, 3, 4);

fn shape() -> ScanShape {
    ScanShape::new(SHAPE.0, SHAPE.1, SHAPE.2).unwrap()
}

fn operand(error: &ScanError) -> &'static str {
    match error {
        ScanError::Length { operand, .. } => operand,
        other => panic!("not a wrong length: {other}"),
    }
}

#[test]
fn empty_dimensions_are_named() {
    for (sizes, expected) in [((0, 1, 1), "batch"), ((1, 0, 1), "seqlen"), ((1, 1, 0), "channels")]
    {
        let (batch, seqlen, channels) = sizes;
        let error = ScanShape::new(batch, seqlen, channels).unwrap_err();
        assert!(
            matches!(error, ScanError::EmptyDimension { dimension, .. } if dimension == expected)
        );
        // The fields are public, so the scan looks again.
        let by_hand = ScanShape { batch, seqlen, channels };
        assert_eq!(Scan::<f32>::new(by_hand, &[], &[]).unwrap_err(), error);
    }
}

#[test]
fn an_overflowing_shape_is_an_error() {
    for sizes in [(usize::MAX, 2, 1), (1 << 40, 1 << 40, 1 << 40), (usize::MAX, 1, 1)] {
        let error = ScanShape::new(sizes.0, sizes.1, sizes.2).unwrap_err();
        assert!(matches!(error, ScanError::TooLarge { .. }), "{error}");
    }
}

#[test]
fn every_operand_is_checked_by_name() {
    let (full, short) = (vec![0.0_f32; 24], vec![0.0_f32; 23]);
    assert_eq!(operand(&Scan::new(shape(), &short, &full).unwrap_err()), "a");
    assert_eq!(operand(&Scan::new(shape(), &full, &short).unwrap_err()), "b");

    let scan = Scan::new(shape(), &full, &full).unwrap();
    assert_eq!(operand(&scan.with_initial_state(&[0.0; 7]).unwrap_err()), "h0");
    assert_eq!(operand(&scan.with_segment_starts(&[true; 5]).unwrap_err()), "starts");
    assert_eq!(operand(&scan.last_state(&short).unwrap_err()), "h");
    assert_eq!(operand(&scan.last_state_into(&full, &mut [0.0; 9]).unwrap_err()), "last");
    for algorithm in Algorithm::CONCRETE {
        assert_eq!(operand(&scan.run_into(algorithm, &mut [0.0; 25]).unwrap_err()), "h");
        let adjoint = |h: &[f32], dh: &[f32], dh_last: Option<&[f32]>| {
            operand(&scan.adjoint(algorithm, h, dh, dh_last).unwrap_err())
        };
        assert_eq!(adjoint(&short, &full, None), "h");
        assert_eq!(adjoint(&full, &short, None), "dh");
        assert_eq!(adjoint(&full, &full, Some(&short)), "dh_last");

        for (da, db, dh0, expected) in [(23, 24, 8, "da"), (24, 23, 8, "db"), (24, 24, 9, "dh0")] {
            let mut buffers = [vec![7.0; da], vec![7.0; db], vec![7.0; dh0]];
            let [da, db, dh0] = &mut buffers;
            let grads = ScanGrads { da, db, dh0: Some(dh0) };
            let error = scan.adjoint_into(algorithm, &full, &full, None, grads).unwrap_err();
            assert_eq!(operand(&error), expected);
            assert!(buffers.iter().flatten().all(|&x| x == 7.0), "written before the check");
        }
    }

    assert_eq!(operand(&step(&[0.0], &[0.0, 0.0], &mut [1.0, 2.0]).unwrap_err()), "a");
    assert_eq!(operand(&step(&[0.0, 0.0], &[0.0], &mut [1.0, 2.0]).unwrap_err()), "b");
}

#[test]
fn messages_say_what_to_do() {
    let error = Scan::new(shape(), &[0.0_f32; 23], &[0.0; 24]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`a` has 23 elements, expected 24: pass a contiguous row-major [B, T, C] slice"
    );
    let error = "blelloch".parse::<Algorithm>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "no scan algorithm is called `blelloch`: use one of auto, naive, tree, heinsen, chunked"
    );
}

#[test]
fn names_round_trip() {
    for algorithm in Algorithm::CONCRETE.into_iter().chain([Algorithm::Auto]) {
        assert_eq!(algorithm.to_string().parse::<Algorithm>().unwrap(), algorithm);
        assert_ne!(algorithm.resolve(shape()), Algorithm::Auto);
    }
    assert_eq!(Algorithm::default(), Algorithm::Auto);
}
