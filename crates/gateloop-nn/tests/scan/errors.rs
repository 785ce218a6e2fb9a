//! Operands that do not fit are refused by name, never by a panic.

use crate::common::{assert_operand, tensor};
use gateloop_nn::{NnError, ScanOptions, scan, scan_with};
use gateloop_scan::ScanError;
use tch::{Device, Kind, Tensor};

fn zeros(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::zeros(shape, (kind, Device::Cpu))
}

#[test]
fn a_wrong_shape_names_the_operand() {
    let x = |shape: &[i64]| tensor(shape, Kind::Float, 1);
    let a = x(&[2, 5, 3]);
    assert_operand(scan(&x(&[5, 3]), &a, None), "a");
    assert_operand(scan(&x(&[1, 2, 5, 3]), &a, None), "a");
    for shape in [&[2_i64, 5, 4][..], &[2, 4, 3], &[1, 5, 3], &[2, 5], &[2, 5, 1]] {
        assert_operand(scan(&a, &x(shape), None), "b");
    }
    for shape in [&[2_i64, 4][..], &[1, 3], &[2, 1, 3], &[3], &[]] {
        assert_operand(scan(&a, &a, Some(&x(shape))), "h0");
    }
}

#[test]
fn a_wrong_kind_names_the_operand() {
    let of = |kind| tensor(&[1, 2, 3], kind, 1);
    let h0 = tensor(&[1, 3], Kind::Double, 1);
    assert_operand(scan(&of(Kind::Float), &of(Kind::Double), None), "b");
    assert_operand(scan(&of(Kind::ComplexFloat), &of(Kind::Float), None), "b");
    assert_operand(scan(&of(Kind::Float), &of(Kind::Float), Some(&h0)), "h0");
    for kind in [Kind::Int, Kind::Int64, Kind::Uint8, Kind::Bool, Kind::Half, Kind::BFloat16] {
        let x = zeros(&[1, 2, 3], kind);
        assert_operand(scan(&x, &x, None), "a");
    }
}

#[test]
fn an_empty_dimension_is_refused() {
    for shape in [[0, 2, 3], [1, 0, 3], [1, 2, 0]] {
        let x = zeros(&shape, Kind::Float);
        let result = scan(&x, &x, None);
        assert!(
            matches!(result, Err(NnError::Scan(ScanError::EmptyDimension { .. }))),
            "{shape:?}: {result:?}"
        );
    }
}

#[test]
fn segment_starts_of_another_length_are_refused() {
    let x = zeros(&[2, 5, 3], Kind::Float);
    for len in [0, 9, 11, 30] {
        let segment_starts = Some(vec![false; len]);
        let options = ScanOptions { segment_starts, ..ScanOptions::default() };
        assert_operand(scan_with(&x, &x, None, &options), "starts");
    }
}

#[test]
fn a_sparse_operand_is_an_error() {
    let x = tensor(&[2, 5, 3], Kind::Float, 1);
    assert!(scan(&x.to_sparse_sparse_dim(3), &x, None).is_err());
}
