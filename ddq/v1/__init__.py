"""The generated API: messages and stubs of `proto/ddq/v1`. Never edited by hand."""
