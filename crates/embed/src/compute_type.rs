//! In what arithmetic vectors are computed.

use kernels::simd::Cpu;

/// The arithmetic of a forward pass, chosen for each call. Vectors of different kinds may be compared
/// with one another: they differ by rounding only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ComputeType {
    /// Linear layers in 8-bit integers: the fastest.
    Int8,
    /// Linear layers and attention in bfloat16, sums in single precision. On a processor without
    /// instructions for it the same numbers come out of single-precision arithmetic, at its speed.
    Bf16,
    /// Single precision throughout.
    F32,
}

impl ComputeType {
    /// Every kind, the fastest first.
    pub const ALL: [ComputeType; 3] = [ComputeType::Int8, ComputeType::Bf16, ComputeType::F32];

    /// The kind queries are best computed in: a query is read once, and someone waits for it.
    pub fn for_queries(_cpu: Cpu) -> ComputeType {
        ComputeType::Int8
    }

    /// The kind documents are best computed in: their vectors stay, so they are (all but) exact.
    pub fn for_documents(cpu: Cpu) -> ComputeType {
        if cpu.has_bf16() { ComputeType::Bf16 } else { ComputeType::F32 }
    }

    /// The name by which a kind is asked for and printed.
    pub fn name(self) -> &'static str {
        match self {
            ComputeType::Int8 => "int8",
            ComputeType::Bf16 => "bf16",
            ComputeType::F32 => "f32",
        }
    }

    /// The kind of that name, if there is one.
    pub fn from_name(name: &str) -> Option<ComputeType> {
        ComputeType::ALL.into_iter().find(|compute| compute.name() == name)
    }
}
