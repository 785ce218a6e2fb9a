//! All forms agree, for widths of heads and lengths around the chunk.

use crate::case::{Case, Size, forms};
use gateloop_nn::gate_loop::Form;
use tch::Kind;

const LENGTHS: [i64; 7] = [1, 2, 63, 64, 65, 130, 257];

fn check_all(head_dim: i64, lengths: &[i64]) {
    let heads = if head_dim == 64 { 1 } else { 3 };
    for &seqlen in lengths {
        let case = Case::new(Size { batch: 2, seqlen, heads, head_dim });
        for kind in [Kind::Double, Kind::Float] {
            let case = case.to_kind(kind);
            for form in forms(head_dim) {
                case.check(&format!("{form:?}, {kind:?}, T {seqlen}, head_dim {head_dim}"), form);
            }
        }
    }
}

#[test]
fn heads_of_width_1() {
    check_all(1, &LENGTHS);
}

#[test]
fn heads_of_width_2() {
    check_all(2, &LENGTHS);
}

#[test]
fn heads_of_width_4() {
    check_all(4, &LENGTHS);
}

#[test]
fn heads_of_width_64() {
    check_all(64, &LENGTHS);
}

#[test]
fn heads_wider_than_the_shortest_chunk() {
    check_all(80, &[79, 80, 81]);
}

#[test]
fn no_state_is_a_state_of_zeros() {
    for head_dim in [1, 4] {
        let size = Size { batch: 2, seqlen: 65, heads: 3, head_dim };
        for form in forms(head_dim) {
            Case::new(size).stateless().check(&format!("{form:?}, head_dim {head_dim}"), form);
        }
    }
}

#[test]
fn forms_are_chosen_by_name() {
    for form in Form::CONCRETE.into_iter().chain([Form::Auto]) {
        assert_eq!(form.to_string().parse::<Form>().unwrap(), form);
    }
    let message = "surrogate".parse::<Form>().unwrap_err().to_string();
    assert!(message.contains("`surrogate`") && message.contains("quadratic"), "{message}");
}
