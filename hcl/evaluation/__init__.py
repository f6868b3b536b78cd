"""The evaluation protocols: how well tokens tell the classes of a labelled data set apart."""
