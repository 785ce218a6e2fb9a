//! Operands that do not fit are refused by name.

use crate::case::{Case, Size, run};
use crate::common::{assert_operand, tensor};
use gateloop_nn::NnError;
use gateloop_nn::gate_loop::{Form, StateTransition, TransitionMode};
use tch::{Device, Kind, Tensor};

const SIZE: Size = Size { batch: 2, seqlen: 3, heads: 2, head_dim: 2 };

/// The operands with one replaced.
fn replaced(operand: usize, by: Tensor) -> Vec<Tensor> {
    let mut leaves = Case::new(SIZE).leaves;
    leaves[operand] = by;
    leaves
}

#[test]
fn the_scan_form_needs_heads_of_width_1() {
    let result = Case::new(SIZE).run(Form::Scan);
    assert!(matches!(result, Err(NnError::Form { form: "scan", .. })), "{result:?}");
}

#[test]
fn a_wrong_shape_names_the_operand() {
    let x = |shape: &[i64]| tensor(shape, Kind::Double, 1);
    for (operand, name) in [(0, "q"), (1, "k"), (2, "v")] {
        for form in [Form::Recurrent, Form::Chunkwise, Form::Quadratic, Form::Auto] {
            assert_operand(run(&replaced(operand, x(&[3, 4])), form), name);
            if operand > 0 {
                assert_operand(run(&replaced(operand, x(&[2, 4, 4])), form), name);
                assert_operand(run(&replaced(operand, x(&[2, 3, 5])), form), name);
                assert_operand(run(&replaced(operand, x(&[2, 3, 1])), form), name);
            }
        }
    }
    for shape in [[2, 2, 2, 1], [1, 2, 2, 2], [2, 1, 2, 2]] {
        let state = tensor(&shape, Kind::ComplexDouble, 1);
        assert_operand(run(&replaced(5, state), Form::Auto), "state");
    }
}

#[test]
fn an_empty_sequence_is_refused() {
    for shape in [[0, 3, 4], [2, 0, 4]] {
        let x = Tensor::zeros(shape, (Kind::Double, Device::Cpu));
        assert_operand(run(&replaced(0, x), Form::Auto), "q");
    }
}

#[test]
fn a_transition_of_another_shape_is_refused() {
    let x = |shape: &[i64]| tensor(shape, Kind::Double, 1);
    for shape in [[2, 3, 3], [2, 4, 2], [1, 3, 2], [2, 3, 0]] {
        let mut leaves = Case::new(SIZE).leaves;
        (leaves[3], leaves[4]) = (x(&shape), x(&shape));
        assert_operand(run(&leaves, Form::Auto), "transition");
    }
    assert_operand(StateTransition::from_polar(&x(&[2, 3, 2]), &x(&[2, 3, 1])), "phase");
    assert_operand(StateTransition::from_polar(&x(&[3, 2]), &x(&[3, 2])), "log_magnitude");
    let z = x(&[2, 3, 2]);
    assert_operand(StateTransition::from_pre_activation(&z, TransitionMode::Complex), "z");
}

#[test]
fn a_wrong_kind_names_the_operand() {
    for (operand, name) in [(1, "k"), (2, "v"), (5, "state")] {
        let kind = if operand == 5 { Kind::ComplexFloat } else { Kind::Float };
        let other = Case::new(SIZE).leaves[operand].to_kind(kind);
        for form in [Form::Recurrent, Form::Chunkwise] {
            assert_operand(run(&replaced(operand, other.shallow_clone()), form), name);
        }
    }
    let mut leaves = Case::new(SIZE).leaves;
    (leaves[3], leaves[4]) = (leaves[3].to_kind(Kind::Float), leaves[4].to_kind(Kind::Float));
    assert_operand(run(&leaves, Form::Auto), "transition");
    let mixed = StateTransition::from_polar(&leaves[3], &leaves[4].to_kind(Kind::Double));
    assert_operand(mixed, "phase");
    let halves: Vec<Tensor> =
        Case::new(SIZE).stateless().leaves.iter().map(|x| x.to_kind(Kind::BFloat16)).collect();
    assert_operand(run(&halves, Form::Auto), "q");
}
