//! libtorch's matrix products: what a linear layer costs at the least, forward and backward.

use crate::error::Result;
use crate::work::Work;
use std::hint::black_box;
use tch::{Device, Kind, Tensor};

/// A product of a linear layer y = x W^T.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProductPart {
    /// y = x W^T
    Forward,
    /// dx = dy W
    GradInput,
    /// dW = dy^T x
    GradWeight,
}

impl ProductPart {
    pub(crate) const ALL: [Self; 3] = [Self::Forward, Self::GradInput, Self::GradWeight];
}

/// Products of one layer.
///
/// # Shapes
/// `x`: [rows, inner], `w`: [columns, inner], `dy`: [rows, columns]
pub(crate) struct Product {
    parts: Vec<ProductPart>,
    x: Tensor,
    w: Tensor,
    dy: Tensor,
}

impl Product {
    pub(crate) fn new([rows, inner, columns]: [usize; 3], parts: &[ProductPart]) -> Result<Self> {
        let draw = |rows: usize, columns: usize| {
            Tensor::f_randn([rows as i64, columns as i64], (Kind::Float, Device::Cpu))
        };
        Ok(Self {
            parts: parts.to_vec(),
            x: draw(rows, inner)?,
            w: draw(columns, inner)?,
            dy: draw(rows, columns)?,
        })
    }
}

impl Work for Product {
    fn run(&mut self) -> Result<()> {
        tch::no_grad(|| {
            for part in &self.parts {
                drop(black_box(match part {
                    ProductPart::Forward => self.x.f_linear(&self.w, None::<&Tensor>)?,
                    ProductPart::GradInput => self.dy.f_matmul(&self.w)?,
                    ProductPart::GradWeight => self.dy.f_tr()?.f_matmul(&self.x)?,
                }));
            }
            Ok(())
        })
    }
}

/// The products of several layers, one after the other.
pub(crate) struct Products(pub(crate) Vec<Product>);

impl Work for Products {
    fn run(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(Product::run)
    }
}
