"""What the tests share: helpers, servers and stubs. The tests themselves are beside this folder.

The folders of ``tests`` mirror those of ``kinto_attachment``. ``consistency`` has the tests of
races, commits, transactions and faults, ``docs`` those of the documents, ``js`` those of the
JavaScript module in Node, and ``browser`` those that need Chromium.

Five modules to know first:

``application``
    Kinto with the plugin in this process, and what a client does with it: ``attach``, ``put_raw``,
    ``read``, ``put_collection``. After each test, ``check_invariant`` looks for files that are
    lost or left.
``backends``
    The fixtures ``app`` (default settings) and ``build`` (settings of the test's choice), and the
    marks that say what a module runs on: ``ON_MEMORY``, ``ON_DATABASES``, ``ON_EACH_DATABASE``,
    ``ON_POSTGRESQL``, ``ON_OBJECT_STORES``.
``services``
    PostgreSQL, two S3 servers and an emulator of Google Cloud Storage, as session fixtures.
``live``
    Kinto as processes, threads and sockets, on gunicorn or waitress.
``faults``
    A proxy that breaks connections, and servers that give the answers a test chose.

The others, by what they are for:

========================================  ========================================================
consistency                               ``invariants`` (what is lost or left), ``interleavings``
                                          (threads that take turns), ``races`` (requests that
                                          meet), ``faults_plugin`` (failures inside a server),
                                          ``load`` (many clients), ``usage`` (what counters say),
                                          ``killed_moves`` (a command that is killed),
                                          ``snapshots`` (what is put back for the next case),
                                          ``protected`` (ways to lose a file), ``statements``
other plugins                             ``publishing``, ``signing``, ``redis_queue``,
                                          ``mirroring``, ``server_code``
many machines                             ``cluster``, ``nginx``
earlier releases                          ``old_rows`` and ``many_rows`` (databases that they
                                          wrote), ``old_site`` (a site of another plugin)
files that linger                         ``lingering``
processes                                 ``forking`` and ``forkserver`` (which save imports),
                                          ``quick_setup`` (which saves most of a set-up), ``built``
                                          (what there is then), ``below`` (several applications),
                                          ``one_process`` (a server beside its maintenance),
                                          ``environments`` (virtual ones), ``waiting`` (with
                                          limits), ``crashes``, ``compiling`` (once for all
                                          processes)
clients                                   ``connections`` (byte by byte), ``interruptions`` (what
                                          happens during a request)
uploads in several requests               ``resuming`` (two workers on each storage), ``tus``,
                                          ``ietf_client`` and ``ietf_cases`` (HTTP's draft),
                                          ``upload_sites``, ``tus_upload.cjs``, ``fips_180``
                                          (SHA-256 from any state)
uploads to a storage itself               ``direct``, ``direct_memory``
samples of large products                 ``sampling``, ``small_scale`` (smaller
                                          batches)
two ways that do the same                 ``ways`` (runs tests in both), ``transcripts`` (and
                                          compares them), ``observed`` (what there is to see)
the HTTP client                           ``scripts``, ``stubs``, ``kinto_js.cjs``,
                                          ``kinto_sync.cjs``, ``openapi_fetch.ts``
the JavaScript module                     ``javascript`` and ``javascript_programs.mjs`` (one
                                          Node runs all programs)
pages                                     ``browser`` (Chromium, origins, files that it shows),
                                          ``kinto_attachment.ts``
imports                                   ``exports`` (that nobody has exported)
storages                                  ``objects``, ``gcs_emulator``, ``owned`` (by a
                                          database), ``certificates``, ``cloud_clients``,
                                          ``special_files`` (that are no files)
databases                                 ``other_database`` (a backend of another package)
links without credentials                 ``links``
names                                     ``filenames`` (that are easily treated wrong)
documents                                 ``documents``, ``description`` (of the API), ``pasted``
                                          (commands in a shell, whose programs are forks)
commands                                  ``chaos`` and ``mutants``, run by make
========================================  ========================================================
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
"""The folder of the project."""
