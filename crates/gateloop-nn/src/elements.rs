//! The elements of a CPU tensor as a Rust slice: the one place where tensor memory is borrowed.

use crate::error::{NnError, Result};
use gateloop_scan::gate_loop::Rows;
use gateloop_scan::{ScanElement, ScanShape};
use num_complex::Complex;
use std::marker::PhantomData;
use std::slice;
use tch::{Device, Kind, Tensor};

/// A scan element that is also an element of tensors.
pub(crate) trait TensorElement: ScanElement {
    /// The kind of a tensor with these elements.
    const KIND: Kind;
}

impl TensorElement for f32 {
    const KIND: Kind = Kind::Float;
}
impl TensorElement for f64 {
    const KIND: Kind = Kind::Double;
}
impl TensorElement for Complex<f32> {
    const KIND: Kind = Kind::ComplexFloat;
}
impl TensorElement for Complex<f64> {
    const KIND: Kind = Kind::ComplexDouble;
}

/// Calls `$function::<E>($args)` with the element type of a kind.
macro_rules! dispatch_kind {
    ($kind:expr, $operand:literal, $function:ident($($arg:expr),* $(,)?)) => {
        match $kind {
            tch::Kind::Float => $function::<f32>($($arg),*),
            tch::Kind::Double => $function::<f64>($($arg),*),
            tch::Kind::ComplexFloat => $function::<num_complex::Complex<f32>>($($arg),*),
            tch::Kind::ComplexDouble => $function::<num_complex::Complex<f64>>($($arg),*),
            actual => Err($crate::error::NnError::Kind {
                operand: $operand,
                expected: "Float, Double, ComplexFloat or ComplexDouble",
                actual,
            }),
        }
    };
}
pub(crate) use dispatch_kind;

/// A contiguous CPU tensor of a known element type, borrowed or copied from another.
pub(crate) struct Elements(Tensor);

impl Elements {
    /// Makes `tensor` readable as a slice; copies only if it is not contiguous.
    pub(crate) fn of<E: TensorElement>(operand: &'static str, tensor: &Tensor) -> Result<Self> {
        if tensor.device() != Device::Cpu {
            return Err(NnError::Device { operand, actual: tensor.device() });
        }
        if tensor.kind() != E::KIND {
            return Err(NnError::Kind {
                operand,
                expected: "the kind of the other operands",
                actual: tensor.kind(),
            });
        }
        // Conjugated and negated views share memory with the plain tensor; the slice must not.
        let is_plain = !tensor.is_neg() && !tensor.is_conj();
        if is_plain && tensor.is_contiguous() {
            return Ok(Self(tensor.shallow_clone()));
        }
        Ok(Self(tensor.f_resolve_conj()?.f_resolve_neg()?.f_contiguous()?))
    }

    /// The elements in row-major order.
    pub(crate) fn slice<E: TensorElement>(&self) -> &[E] {
        if self.0.numel() == 0 {
            return &[]; // Its pointer is null.
        }
        // SAFETY: `of` checked the device, the kind and contiguity; the tensor is alive as long as
        // self, and nothing in this crate writes to an operand.
        unsafe { slice::from_raw_parts(self.0.data_ptr().cast::<E>().cast_const(), self.0.numel()) }
    }
}

/// The rows of a [B, T, W] CPU tensor where they lie: a part of a projection is not copied.
pub(crate) struct StridedRows(Tensor);

impl StridedRows {
    /// Makes the rows readable; copies only if the numbers of a row do not lie side by side.
    pub(crate) fn of<E: TensorElement>(operand: &'static str, tensor: &Tensor) -> Result<Self> {
        let strides = tensor.stride();
        let is_plain = !tensor.is_neg() && !tensor.is_conj();
        let in_rows = strides.last() == Some(&1) && strides.iter().all(|&stride| stride >= 0);
        let fits = tensor.device() == Device::Cpu && tensor.kind() == E::KIND && is_plain;
        if fits && in_rows && tensor.dim() == 3 && tensor.numel() > 0 {
            return Ok(Self(tensor.shallow_clone()));
        }
        Ok(Self(Elements::of::<E>(operand, tensor)?.0))
    }

    /// The rows, of `shape`.
    pub(crate) fn rows<E: TensorElement>(
        &self,
        operand: &'static str,
        shape: ScanShape,
    ) -> Result<Rows<'_, E>> {
        let (dims, strides) = (self.0.size(), self.0.stride());
        let given = [shape.batch, shape.seqlen, shape.channels].map(|x| x as i64);
        if dims != given {
            let expected = format!("{given:?}");
            return Err(NnError::Shape { operand, expected, actual: dims });
        }
        // Up to the last number of the last row.
        let reach: i64 = dims.iter().zip(&strides).map(|(dim, stride)| (dim - 1) * stride).sum();
        // SAFETY: `of` checked the device, the kind and that strides lead forwards; the tensor has these numbers and
        // is alive as long as self, and nothing in this crate writes to an operand.
        let data = unsafe {
            slice::from_raw_parts(self.0.data_ptr().cast::<E>().cast_const(), reach as usize + 1)
        };
        Ok(Rows::strided(operand, data, shape, [strides[0] as usize, strides[1] as usize])?)
    }
}

/// The elements of a contiguous CPU tensor that are bytes or halves of words: stored weights.
pub(crate) trait StoredElement: Copy {
    /// The kind of a tensor with these elements.
    const KIND: Kind;
}

impl StoredElement for f32 {
    const KIND: Kind = Kind::Float;
}
/// The upper half of an f32.
impl StoredElement for u16 {
    const KIND: Kind = Kind::BFloat16;
}
impl StoredElement for i8 {
    const KIND: Kind = Kind::Int8;
}

/// The elements of a stored tensor where they lie; `None` unless it has some, contiguous, on the CPU and
/// of kind E.
pub(crate) fn stored<E: StoredElement>(tensor: &Tensor) -> Option<&[E]> {
    let fits = tensor.device() == Device::Cpu
        && tensor.numel() > 0
        && tensor.kind() == E::KIND
        && tensor.is_contiguous()
        && !tensor.is_neg();
    // SAFETY: the device, the kind and contiguity were checked; the tensor is alive as long as the
    // slice, and nothing in this crate writes to an operand.
    fits.then(|| unsafe {
        slice::from_raw_parts(tensor.data_ptr().cast::<E>().cast_const(), tensor.numel())
    })
}

/// A new tensor that is written as a slice before anyone else sees it.
pub(crate) struct Output<E> {
    tensor: Tensor,
    element: PhantomData<E>,
}

impl<E: TensorElement> Output<E> {
    /// Allocates a CPU tensor of this shape; its elements are arbitrary until written.
    pub(crate) fn new(shape: &[i64]) -> Result<Self> {
        let tensor = Tensor::f_empty(shape, (E::KIND, Device::Cpu))?;
        Ok(Self { tensor, element: PhantomData })
    }

    /// The elements in row-major order.
    pub(crate) fn slice_mut(&mut self) -> &mut [E] {
        let (data, len) = (self.tensor.data_ptr().cast::<E>(), self.tensor.numel());
        if len == 0 {
            return &mut []; // Its pointer is null.
        }
        // SAFETY: the tensor was made by `new`: contiguous, of kind E, on the CPU, with no other
        // handle. Every bit pattern is a valid E.
        unsafe { slice::from_raw_parts_mut(data, len) }
    }

    /// Hands the tensor over.
    pub(crate) fn into_tensor(self) -> Tensor {
        self.tensor
    }
}
