//! Texts of many documents embedded together: each distinct text once, in batches of similar
//! length that leave a worker free for a search after a short while.

use std::{collections::HashMap, time::Duration};

use crate::{
    Error,
    models::{Models, TextVector},
    sync::Arc,
};

/// Texts a batch.
const BATCH_TEXTS_MAX: usize = 32;

/// Estimated tokens a batch: how long a search may find every worker busy.
const BATCH_TOKENS_MAX: usize = 512;

/// Bytes a token of English has, roughly; for estimates only.
const BYTES_PER_TOKEN: usize = 4;

/// A batch's share of the answer: for each distinct text its number and what became of it.
pub(crate) type BatchDone = Vec<(usize, Result<Arc<TextVector>, Error>)>;

/// How a list of texts is embedded.
pub(crate) struct Plan {
    /// For each text of the list, the number of the distinct text it equals.
    distinct: Vec<usize>,
    batches: Vec<Batch>,
}

/// Texts for one model and one pass through it.
pub(crate) struct Batch {
    model: String,
    texts: Vec<(usize, String)>,
}

impl Plan {
    /// Plans for texts, each with the name of its model.
    pub(crate) fn new(texts: Vec<(String, String)>) -> Plan {
        let mut numbers: HashMap<(String, String), usize> = HashMap::with_capacity(texts.len());
        let distinct = texts
            .into_iter()
            .map(|text| {
                let next = numbers.len();
                *numbers.entry(text).or_insert(next)
            })
            .collect();
        let mut texts: Vec<((String, String), usize)> = numbers.into_iter().collect();
        // The number last, so that one list is always cut the same way.
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
        Plan { distinct, batches }
    }

    /// The numbers [`gather`] finds the texts of the list by, and the batches.
    pub(crate) fn into_parts(self) -> (Vec<usize>, Vec<Batch>) {
        (self.distinct, self.batches)
    }
}

impl Batch {
    /// The step of a worker that embeds it.
    pub(crate) fn into_step(
        self,
        models: &Arc<Models>,
    ) -> impl FnOnce(Duration) -> Result<BatchDone, Error> + Send + use<> {
        let models = models.clone();
        move |_waited| Ok(self.embed(&models))
    }

    fn embed(self, models: &Models) -> BatchDone {
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

/// What became of each text of a list, in its order.
pub(crate) fn gather(distinct: &[usize], done: Vec<BatchDone>) -> Vec<Result<Arc<TextVector>, Error>> {
    let done: HashMap<usize, Result<Arc<TextVector>, Error>> = done.into_iter().flatten().collect();
    distinct.iter().map(|number| done[number].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(model: &str, text: &str) -> (String, String) {
        (model.to_owned(), text.to_owned())
    }

    #[test]
    fn equal_texts_of_one_model_are_embedded_once() {
        let plan = Plan::new(vec![text("m", "a"), text("n", "a"), text("m", "a"), text("m", "b")]);
        assert_eq!(plan.distinct[0], plan.distinct[2]);
        assert_ne!(plan.distinct[0], plan.distinct[1]);
        assert_eq!(plan.batches.iter().map(|batch| batch.texts.len()).sum::<usize>(), 3);
    }

    #[test]
    fn batches_hold_one_model_and_stay_small() {
        let texts: Vec<_> = (0..1000)
            .map(|number| {
                text(["m", "n"][number % 2], &format!("{number} {}", "x".repeat(number * 7 % 3001)))
            })
            .collect();
        let plan = Plan::new(texts.clone());
        let mut seen = vec![false; 1000];
        for batch in &plan.batches {
            assert!(batch.texts.len() <= BATCH_TEXTS_MAX);
            let tokens: usize = batch.texts.iter().map(|(_, text)| text.len() / BYTES_PER_TOKEN + 1).sum();
            assert!(tokens <= BATCH_TOKENS_MAX || batch.texts.len() == 1, "{tokens} tokens");
            for (number, text) in &batch.texts {
                let place = plan.distinct.iter().position(|distinct| distinct == number).unwrap();
                assert_eq!((&batch.model, text), (&texts[place].0, &texts[place].1));
                assert!(!std::mem::replace(&mut seen[place], true), "text {place} twice");
            }
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
