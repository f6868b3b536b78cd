"""The evaluation protocols: how well tokens tell the classes of a labelled data set apart (HCL, section 7).

- Protocols, each a configuration and ``run(config, world)``: `linear_probe`, `linear`, `overclustering`,
  `fully_unsupervised`, `foreground`, `retrieval`; `baseline` runs another one on what a head starts from.
- What all of them stand on: `protocol` (settings), `framed_images`, `tokens` and `token_store` (tokens of a
  data set, named by `fingerprint`), `metrics` and `matching` (scores), `report` (tables and metrics.json),
  `output` (the folder that these go to).
- Parts of the linear classifier: `linear_classifier`, `linear_scores`, `crf`.
- Parts of what clusters: `pca`, `clusters`; of the fully unsupervised protocol: `cluster_foreground`,
  `foreground_clusters`, `cooccurrence`, `communities`, `foreground_scores`.
- Parts of retrieval: `token_labels`, `retrieval_memory`, `nearest_tokens`, `label_retrieval`.
"""
