"""What a workdir holds, over its raw volume, in neuroglancer."""
