"""The helpers, servers and stubs of the tests, which are in the folders beside this one.

The folders of ``tests`` mirror those of ``kinto_attachment``. In addition, ``consistency`` has the
tests of races, commits, transactions and faults, ``docs`` those of the documents, ``js`` those of
the JavaScript module in Node, and ``browser`` those that need Chromium.

Five modules to know first:

``application``
    Kinto with the plugin in this process, and requests of clients: ``attach``, ``put_raw``,
    ``read``, ``put_collection``. After each test, ``check_invariant`` looks for lost and leaked
    files.
``backends``
    The fixtures ``app`` (default settings) and ``build`` (other settings), and the marks for the
    storages and databases on which a test runs: ``ON_MEMORY``, ``ON_DATABASES``,
    ``ON_EACH_DATABASE``, ``ON_POSTGRESQL``, ``ON_OBJECT_STORES``, ``EVERYWHERE``.
``services``
    PostgreSQL, two S3 servers and an emulator of Google Cloud Storage, as session fixtures.
``live``
    Kinto as processes, threads and sockets, on gunicorn or waitress.
``faults``
    A proxy that breaks connections, and servers with responses that a test chooses.

The other modules, by purpose:

========================================  ========================================================
purpose                                   modules
========================================  ========================================================
consistency                               ``invariants`` (lost and leaked files), ``interleavings``
                                          (threads that take turns), ``races`` (concurrent
                                          requests), ``faults_plugin`` (failures inside a server),
                                          ``load`` (many clients), ``usage`` (values of counters),
                                          ``killed_moves`` (a command that is killed),
                                          ``snapshots`` (restoring the state for the next case),
                                          ``protected`` (ways to delete a file), ``statements``
                                          (SQL statements)
other plugins                             ``publishing``, ``signing``, ``redis_queue``,
                                          ``mirroring``, ``server_code``
several machines                          ``cluster``, ``nginx``
earlier releases                          ``old_rows`` and ``many_rows`` (their databases),
                                          ``old_site`` (a site of another plugin)
lingering files                           ``lingering``
processes                                 ``forking`` and ``forkserver`` (Python programs without
                                          import time), ``quick_setup`` (applications without
                                          most of the set-up time), ``built`` (the objects of an
                                          application), ``below`` (several applications),
                                          ``one_process`` (a server and its maintenance commands),
                                          ``environments`` (virtual environments), ``waiting``
                                          (time limits), ``crashes``, ``compiling`` (bytecode for
                                          all processes)
clients                                   ``connections`` (raw sockets), ``interruptions`` (changes
                                          during a request), ``patient_server`` (for slow clients)
uploads in several requests               ``resuming`` (two workers on each storage), ``tus``,
                                          ``ietf_client`` and ``ietf_cases`` (HTTP's draft),
                                          ``upload_sites``, ``tus_upload.cjs``, ``fips_180``
                                          (SHA-256 from any state)
direct uploads                            ``direct``, ``direct_memory``
samples of large products                 ``sampling``, ``small_scale`` (smaller batches)
two ways with the same result             ``ways`` (runs tests in both), ``transcripts`` (compares
                                          the runs), ``observed`` (the observable results)
the HTTP client                           ``scripts``, ``stubs``, ``kinto_js.cjs``,
                                          ``kinto_sync.cjs``, ``openapi_fetch.ts``
the JavaScript module                     ``javascript`` and ``javascript_programs.mjs`` (one
                                          Node runs all programs)
pages                                     ``browser`` (Chromium, origins, displayed files),
                                          ``kinto_attachment.ts``
imports                                   ``exports`` (forged exports)
storages                                  ``objects``, ``gcs_emulator``, ``owned`` (storages that
                                          belong to a database), ``certificates``,
                                          ``cloud_clients``, ``special_files`` (pipes, sockets)
databases                                 ``other_database`` (a backend of another package)
links without credentials                 ``links``
names                                     ``filenames`` (difficult filenames)
documents                                 ``documents``, ``description`` (of the API), ``pasted``
                                          (shell commands, whose programs are forks)
commands                                  ``chaos`` and ``mutants``, run by make
========================================  ========================================================
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
"""The folder of the project."""
