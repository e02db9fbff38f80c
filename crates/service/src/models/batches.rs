//! Batch embedding of document texts: each distinct text is embedded once, in batches of texts of
//! similar length that are small enough not to delay searches.

use std::{collections::HashMap, time::Duration};

use crate::{
    Error,
    models::{Models, TextVector},
    sync::Arc,
};

/// Texts per batch.
const BATCH_TEXTS_MAX: usize = 32;

/// Estimated tokens per batch. Bounds how long a batch occupies a worker.
const BATCH_TOKENS_MAX: usize = 512;

/// Approximate bytes per token of English text; for estimates only.
const BYTES_PER_TOKEN: usize = 4;

/// The results of a batch: the number of each distinct text, and its vector or error.
pub(crate) type BatchVectors = Vec<(usize, Result<Arc<TextVector>, Error>)>;

/// The batches in which a list of texts is embedded.
pub(crate) struct EmbeddingPlan {
    /// For each text of the list, the number of its distinct text.
    distinct: Vec<usize>,
    batches: Vec<Batch>,
}

/// Texts that one model embeds together.
pub(crate) struct Batch {
    model: String,
    texts: Vec<(usize, String)>,
}

impl EmbeddingPlan {
    /// Plans the batches of `texts`, pairs of model name and text.
    pub(crate) fn new(texts: Vec<(String, String)>) -> EmbeddingPlan {
        let mut numbers: HashMap<(String, String), usize> = HashMap::with_capacity(texts.len());
        let distinct = texts
            .into_iter()
            .map(|text| {
                let next = numbers.len();
                *numbers.entry(text).or_insert(next)
            })
            .collect();
        let mut texts: Vec<((String, String), usize)> = numbers.into_iter().collect();
        // Ordered by number last, so that the batches of a list are deterministic.
        texts.sort_unstable_by(|((model, text), number), ((other_model, other_text), other_number)| {
            (model, text.len(), number).cmp(&(other_model, other_text.len(), other_number))
        });
        let mut batches: Vec<Batch> = Vec::new();
        let mut tokens = 0;
        for ((model, text), number) in texts {
            let cost = text.len() / BYTES_PER_TOKEN + 1;
            match batches.last_mut() {
                Some(batch)
                    if batch.model == model
                        && batch.texts.len() < BATCH_TEXTS_MAX
                        && tokens + cost <= BATCH_TOKENS_MAX =>
                {
                    batch.texts.push((number, text));
                    tokens += cost;
                }
                _ => {
                    batches.push(Batch { model, texts: vec![(number, text)] });
                    tokens = cost;
                }
            }
        }
        EmbeddingPlan { distinct, batches }
    }

    /// The numbers of the distinct texts, for [`collect_vectors`], and the batches.
    pub(crate) fn into_parts(self) -> (Vec<usize>, Vec<Batch>) {
        (self.distinct, self.batches)
    }
}

impl Batch {
    /// The worker job that embeds the batch.
    pub(crate) fn into_job(
        self,
        models: &Arc<Models>,
    ) -> impl FnOnce(Duration) -> Result<BatchVectors, Error> + Send + use<> {
        let models = models.clone();
        move |_waited| Ok(self.embed(&models))
    }

    fn embed(self, models: &Models) -> BatchVectors {
        let texts: Vec<&str> = self.texts.iter().map(|(_, text)| text.as_str()).collect();
        let numbers = self.texts.iter().map(|(number, _)| *number);
        match models.get(&self.model).and_then(|model| models.embed_documents(&model, &texts)) {
            Ok(embedded) => {
                numbers.zip(embedded.into_iter().map(|embedded| Ok(Arc::new(embedded)))).collect()
            }
            Err(error) => numbers.map(|number| (number, Err(error.clone()))).collect(),
        }
    }
}

/// The vector or error of each text of the list, in list order.
pub(crate) fn collect_vectors(
    distinct: &[usize],
    batches: Vec<BatchVectors>,
) -> Vec<Result<Arc<TextVector>, Error>> {
    let vectors: HashMap<usize, Result<Arc<TextVector>, Error>> = batches.into_iter().flatten().collect();
    distinct.iter().map(|number| vectors[number].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(model: &str, text: &str) -> (String, String) {
        (model.to_owned(), text.to_owned())
    }

    #[test]
    fn equal_texts_of_one_model_are_embedded_once() {
        let plan = EmbeddingPlan::new(vec![text("m", "a"), text("n", "a"), text("m", "a"), text("m", "b")]);
        assert_eq!(plan.distinct[0], plan.distinct[2]);
        assert_ne!(plan.distinct[0], plan.distinct[1]);
        assert_eq!(plan.batches.iter().map(|batch| batch.texts.len()).sum::<usize>(), 3);
    }

    #[test]
    fn batches_have_one_model_and_a_bounded_size() {
        let texts: Vec<_> = (0..1000)
            .map(|number| {
                text(["m", "n"][number % 2], &format!("{number} {}", "x".repeat(number * 7 % 3001)))
            })
            .collect();
        let plan = EmbeddingPlan::new(texts.clone());
        let mut seen = vec![false; 1000];
        for batch in &plan.batches {
            assert!(batch.texts.len() <= BATCH_TEXTS_MAX);
            let tokens: usize = batch.texts.iter().map(|(_, text)| text.len() / BYTES_PER_TOKEN + 1).sum();
            assert!(tokens <= BATCH_TOKENS_MAX || batch.texts.len() == 1, "{tokens} tokens");
            for (number, text) in &batch.texts {
                let position = plan.distinct.iter().position(|distinct| distinct == number).unwrap();
                assert_eq!((&batch.model, text), (&texts[position].0, &texts[position].1));
                assert!(!std::mem::replace(&mut seen[position], true), "text {position} twice");
            }
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
