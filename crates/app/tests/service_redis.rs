//! What becomes of vectors in a Redis when the model is another.

mod fixture;
#[path = "redis_stack/mod.rs"]
mod redis_stack;

use fixture::{COLLECTION, Fixture, article, tiny_model};
use nearfield::service::{Outcome, RedisStore, Store};
use redis_stack::RedisStack;

#[tokio::test]
async fn vectors_of_another_model_are_told_and_made_again_once() {
    let Some(redis) = RedisStack::plain() else { return };
    let mut closed = Fixture::empty().close();
    closed.config.store = Store::Redis(RedisStore::new(redis.url()));
    let house = closed.open();
    house.make(COLLECTION, article("a:")).await;
    let documents = [("1", "apple"), ("2", "router"), ("3", "winter")];
    for (id, title) in documents {
        house.put(id, title, "").await.unwrap();
    }
    let closed = house.close();
    tiny_model::write(&closed.model_dir(), 2);
    let house = closed.open();
    house.settled().await;
    for (id, title) in documents {
        let distance = house.distance_from(COLLECTION, id, title).await.unwrap();
        assert!(distance.abs() < 1e-5, "{id}: {distance}");
    }
    assert_eq!(house.service.activity().embedded_texts, 3);

    let house = house.reopen();
    assert!(house.service.readiness().ready, "{:?}", house.service.readiness());
    assert_eq!(house.put("1", "apple", "").await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(house.service.activity().embedded_texts, 0);
}
