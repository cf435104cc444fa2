//! What only a store that many nodes share can promise.

use super::*;

#[tokio::test]
async fn closed_shared_store_says_so() {
    let Some(factory) = InPostgres::new().await else {
        return;
    };
    let mut ann = Writer::claim(&factory.store, "a").await;
    factory.store.close().await.unwrap();
    let batch = batch("a", ann.fence, vec![ann.entry(create(""))]);
    let error = factory.store.append(vec![batch]).await.unwrap_err();
    assert_eq!(error.to_string(), "append: the store is closed");
    let error = factory.store.claim(&doc("a"), ME).await.unwrap_err();
    assert_eq!(error.to_string(), "claim: the store is closed");
    let loaded = factory.store.load(&doc("a"), Reach::Head).await;
    let error = loaded.unwrap_err();
    assert_eq!(error.to_string(), "load: the store is closed");
    factory.store.close().await.unwrap();
}
