"""Our sides. As the command does, they keep the memory that they have freed."""

from maemem.memory import keep_freed_memory

keep_freed_memory()
