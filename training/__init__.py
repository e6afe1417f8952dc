"""Training: data -> augmentation -> strategy -> model.fit -> evaluation."""
