"""From images to feature shards: VGG16, fine-tuned on the labelled images of each split."""
