"""The evaluation protocols: how well tokens separate the classes of a labelled data set (HCL, section 7).

- Protocols, each with a configuration and ``run(config, world)``: `linear_probe`, `linear`, `overclustering`,
  `fully_unsupervised`, `foreground`, `retrieval`; `baseline` runs a protocol on a head and on its baselines.
- Shared by all of them: `protocol` (settings), `framed_images`, `tokens` and `token_store` (tokens of a data
  set, named by `fingerprint`), `metrics` and `matching` (scores), `report` (tables and metrics.json),
  `output` (checks of the output folder).
- Parts of the linear classifier: `linear_classifier`, `linear_scores`, `crf`.
- Parts of the clustering protocols: `pca`, `clusters`; of the fully unsupervised one: `cluster_foreground`,
  `foreground_clusters`, `cooccurrence`, `communities`, `foreground_scores`.
- Parts of retrieval: `token_labels`, `retrieval_memory`, `nearest_tokens`, `label_retrieval`.
"""
