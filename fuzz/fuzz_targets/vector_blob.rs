//! Vectors as bytes: what is taken is finite, as long as it should be, and comes back.
#![no_main]

use engine::{Metric, VectorType, check_vector, decode_vector, encode_vector};
use libfuzzer_sys::fuzz_target;

const TYPES: [VectorType; 4] =
    [VectorType::Float32, VectorType::Float16, VectorType::Bfloat16, VectorType::Int8];

fuzz_target!(|input: (u8, u8, u8, &[u8])| {
    let (dim, of, metric, bytes) = input;
    let dim = usize::from(dim).max(1);
    let vector_type = TYPES[usize::from(of) % TYPES.len()];
    let metric = [Metric::Cosine, Metric::L2, Metric::Ip][usize::from(metric) % 3];
    if let Ok(values) = decode_vector(bytes, dim, vector_type, metric) {
        assert_eq!(values.len(), dim);
        assert!(values.iter().all(|value| value.is_finite()));
        assert!(check_vector(&values, dim, metric).is_ok());
        let encoded = encode_vector(&values, vector_type);
        let again = decode_vector(&encoded, dim, vector_type, metric).expect("what was taken is taken again");
        assert_eq!(again, values);
    }
});
