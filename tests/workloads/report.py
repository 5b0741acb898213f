# The step that reproduces the hang in actions/actions-runner-controller#4436: shared anonymous memory (shmem, as
# mmap.mmap(-1, ...) is MAP_SHARED) in blocks of 100 MiB, without end.
import mmap

blocks = []
while True:
    m = mmap.mmap(-1, 100 * 1024 * 1024)
    m.write(b"\x01" * (100 * 1024 * 1024))
    blocks.append(m)
