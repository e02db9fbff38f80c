//! The arithmetic in which vectors are computed.

use kernels::simd::Cpu;

/// The arithmetic of a forward pass, selected per call. Vectors of different compute types are comparable:
/// they differ only by rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ComputeType {
    /// Linear layers in 8-bit integers. The fastest.
    Int8,
    /// Linear layers and attention in bfloat16, with sums in single precision. On a processor without bfloat16
    /// instructions, single-precision arithmetic computes the same values, more slowly.
    Bf16,
    /// Single precision throughout.
    F32,
}

impl ComputeType {
    /// All compute types, fastest first.
    pub const ALL: [ComputeType; 3] = [ComputeType::Int8, ComputeType::Bf16, ComputeType::F32];

    /// The default for queries, where latency matters and a vector is used only once.
    pub fn for_queries(_cpu: Cpu) -> ComputeType {
        ComputeType::Int8
    }

    /// The default for documents, whose vectors are stored and should therefore be (nearly) exact.
    pub fn for_documents(cpu: Cpu) -> ComputeType {
        if cpu.has_bf16() { ComputeType::Bf16 } else { ComputeType::F32 }
    }

    /// The name used in settings and in output.
    pub fn name(self) -> &'static str {
        match self {
            ComputeType::Int8 => "int8",
            ComputeType::Bf16 => "bf16",
            ComputeType::F32 => "f32",
        }
    }

    /// The compute type with this name, if there is one.
    pub fn from_name(name: &str) -> Option<ComputeType> {
        ComputeType::ALL.into_iter().find(|compute| compute.name() == name)
    }
}
