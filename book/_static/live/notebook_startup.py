"""What the kernel of JupyterLite lacks; its IPython runs this when it starts."""


def amend(shell):
    """Images shown by `display` are encoded; an error that a cell announces ends no Run All."""
    import sys

    from pyodide_kernel.jsonutil import json_clean

    kernel, publisher = shell.kernel, shell.display_pub
    ordinary_run, ordinary_publish = kernel.run, publisher.publish

    def publish(data, metadata=None, *args, **options):
        ordinary_publish(json_clean(data), metadata, *args, **options)

    async def run(code):
        results = await ordinary_run(code)
        # False for a cell tagged `raises-exception`. JupyterLite ends a Run All at every error.
        if results["status"] == "error" and not kernel._parent_header["content"]["stop_on_error"]:
            sys.stderr.write("\n".join(results["traceback"]) + "\n")
            results = {"status": "ok", "payload": results["payload"]}
        return results

    publisher.publish, kernel.run = publish, run


amend(get_ipython())  # noqa: F821 - IPython puts that name here
del amend
